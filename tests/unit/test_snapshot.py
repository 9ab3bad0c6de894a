"""Reading a version of a table: whatever its partitions are called, and however early a reader stops."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.lakehouse import Lakehouse
from resources.tables import TableSpec
from tests.helpers import half_read

NOTES = TableSpec(
    "test/notes",
    pa.schema([pa.field("partition", pa.string(), nullable=False), pa.field("note", pa.string(), nullable=False)]),
    ("partition",),
)
AWKWARD = st.text("ab ./\\%:=#?&+'\"é日~*", min_size=1, max_size=8)


@given(st.lists(AWKWARD, min_size=1, max_size=4, unique=True))
@settings(max_examples=25, deadline=None)
def test_a_partition_of_any_name_is_read_back(names: list[str]) -> None:
    with tempfile.TemporaryDirectory(suffix=" é") as folder:
        lake = Lakehouse(folder)
        for name in names:
            [batch] = pa.Table.from_pylist([{"partition": name, "note": name}], schema=NOTES.schema).to_batches()
            lake.replace(lake.ensure(NOTES), {"partition": name}, [batch], {})
        snapshot = lake.snapshot(NOTES)
        assert snapshot is not None
        assert sorted(snapshot.read().rows()) == sorted((name, name) for name in names)
        for name in names:
            [found] = snapshot.scan(where=pc.field("partition") == name)
            assert found.to_pylist() == [{"partition": name, "note": name}]


def test_a_process_that_stops_reading_early_ends_in_peace(tmp_path: Path) -> None:
    """Arrow reads ahead in threads: where those call Python, the end of the process is a crash or never comes."""
    half_read.fill(Lakehouse(str(tmp_path)))
    command = [sys.executable, "-m", "tests.helpers.half_read", str(tmp_path)]
    for _ in range(4):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
