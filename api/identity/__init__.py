"""Who asks, and how much of it: the parts behind the permission types of api.auth.

    callers    Caller, and every refusal of one
    remembered a value read from elsewhere, read again now and then, believed for a while
    keys       API keys, checked against the hashes in the lake
    tokens     an issuer's JWTs, checked against its key set
    limits     how many requests, how costly ones, how many refused credentials
    desk       all of these together, for the app's life

Does not belong here: which route needs which role (routes, by the types of api.auth), what a dataset's policy allows
(query.published), where the service listens (api.exposure).
"""
