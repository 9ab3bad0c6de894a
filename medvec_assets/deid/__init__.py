"""De-identification: what may be kept, and pseudonyms for what may not. Pure.

Belongs here: allow lists, rules, keyed pseudonyms. Does not belong here: parsing a format (modalities), key storage
(resources.settings).
"""
