"""Shared fakes and worlds: small sources and files, a counting encoder, an index in memory, a pipeline that strings them
together, and filled lakes with the service over them (`*_world`).

Belongs here: what several test modules need. Does not belong here: tests, or anything a single module could hold.
"""
