"""Questions to the lakehouse: search and lineage, the same for the command line and the service.

Belongs here: what may be seen (published), reading a few rows out of large tables (rows), neighbours (search) and
where a vector came from (lineage). All of it is read from the lake and the index.
Does not belong here: Dagster, HTTP, who the caller is (api), or any write.
"""
