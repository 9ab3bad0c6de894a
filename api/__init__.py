"""The query service: search and lineage over HTTP, behind a credential.

    app       create_app(settings): middleware, error handlers, routes, lifespan
    service   what the routes share for the app's life: lake, index connection, search engine
    auth      permissions as types in a route's signature; identity: who a caller is, within which limits
    exposure  where it listens, by which names, with TLS by whom
    problems  every refusal as problem+json (RFC 9457)
    routes    the endpoints; models: their bodies
    server    runs it under uvicorn, with logs that never hold a question

Does not belong here: how a search works (medvec_assets.query), anything of Dagster. No log line quotes a body, a query
string or an error's text.
"""
