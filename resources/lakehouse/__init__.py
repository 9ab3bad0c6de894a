"""Delta tables: the only importer of deltalake. Local folder or s3:// by URI alone.

Belongs here: opening, reading, replacing, appending and maintaining tables, and turning storage failures into named
errors. Does not belong here: what a table means (tables names the columns, stages decide the rows).
"""

from resources.lakehouse.lake import FILE_RETENTION_DAYS, Commit, Lakehouse
from resources.lakehouse.snapshot import Snapshot
from resources.lakehouse.upkeep import Compaction, checkpoint, compact, require_retention, small_files, vacuum

__all__ = [
    "FILE_RETENTION_DAYS",
    "Commit",
    "Compaction",
    "Lakehouse",
    "Snapshot",
    "checkpoint",
    "compact",
    "require_retention",
    "small_files",
    "vacuum",
]
