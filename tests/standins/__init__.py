"""Stand-ins of the sources' web services: they speak the documented protocols over the fixture folders.

Belongs here: servers. Does not belong here: tests, or anything that a source does not do.
"""
