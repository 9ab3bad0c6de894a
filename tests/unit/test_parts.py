"""Tables sorted anew: a part's bytes depend on its rows alone, and nothing is read twice."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvec_assets.connectors import parts
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.parts import Parts, ShardedTable, shard_table
from medvec_assets.json_columns import json_objects
from resources.errors import ObjectRejected
from resources.settings import Settings

Row = tuple[int, int, str]  # subject, part, value


def landing(home: Path) -> Landing:
    return Landing(Settings(home=home), "mimic_stays")


def frames(rows: list[Row], size: int = 7) -> Iterator[pl.DataFrame]:
    columns = {"subject": pl.String(), "part": pl.String(), "value": pl.String()}
    yield pl.DataFrame(schema=columns)
    for start in range(0, len(rows), size):
        texts = [[str(value) for value in row] for row in rows[start : start + size]]
        yield pl.DataFrame(texts, schema=columns, orient="row")


def made(home: Path, rows: list[Row], name: str = "table-1") -> tuple[ShardedTable, Parts]:
    table = shard_table(landing(home), name, "subject", lambda: frames(rows))

    def lines(shards: range) -> pl.DataFrame:
        numbers = [pl.col(column).cast(pl.Int64) for column in ("part", "subject")]
        return table.of(shards).select(*numbers, line=json_objects(value=pl.col("value")))

    return table, Parts(landing(home), f"parts-{name}", [table], lines)


def expected(rows: list[Row]) -> dict[int, bytes]:
    lines: dict[int, list[str]] = {}
    for _, part, value in rows:
        lines.setdefault(part, []).append(f'{{"value":"{value}"}}\n')
    return {part: "".join(sorted(found)).encode() for part, found in lines.items()}


some_rows = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.sampled_from("abc")), max_size=60).map(
    lambda rows: [(subject, subject * 2 + one, value) for subject, one, value in rows]
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=some_rows, seed=st.integers(0, 9), group_rows=st.sampled_from([1, 10, 1_000]))
def test_a_part_is_its_rows_whatever_their_order_and_the_groups(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Row],
    seed: int,
    group_rows: int,
) -> None:
    monkeypatch.setattr(parts, "GROUP_ROWS", group_rows)
    random.Random(seed).shuffle(rows)
    table, found = made(tmp_path_factory.mktemp("home"), rows)
    index = pl.concat(list(found.indexes()))
    wanted = expected(rows)
    assert sorted(index["part"]) == sorted(wanted)
    for part, subject, size, digest in index.iter_rows():
        assert found.read(part, subject, 1_000) == wanted[part]
        assert (size, digest) == (len(wanted[part]), hashlib.sha256(wanted[part]).hexdigest())
    assert table.rows == len(rows)


def test_a_row_without_a_number_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = pl.DataFrame({"subject": ["1", "x", None, "2"], "value": ["a", "b", "c", "d"]})
    table = shard_table(landing(tmp_path), "t", "subject", lambda: iter([rows]))
    assert (table.rows, table.left_out) == (2, 2)
    assert sorted(table.of(range(256))["value"]) == ["a", "d"]


def test_what_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    _, found = made(tmp_path, [(1, 2, "a")])
    for part, limit, code in ((3, 1_000, "object_missing"), (2, 5, "object_too_large")):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(part, 1, limit)
        assert refusal.value.code == code


def test_a_killed_run_goes_on_in_the_table_and_the_group_in_which_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "GROUP_ROWS", 20)
    rows = [(i, i, "v") for i in range(100)]
    table, found = made(tmp_path, rows)
    wrote = parts._write_group
    groups: list[Path] = []

    def killed_in_the_third(folder: Path, lines: pl.DataFrame) -> None:
        groups.append(folder)
        wrote(folder, lines)
        if len(groups) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_write_group", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        list(found.indexes())

    def never() -> Iterator[pl.DataFrame]:
        raise AssertionError("a landed table is read again")

    assert shard_table(landing(tmp_path), "table-1", "subject", never).rows == table.rows
    assert pl.concat(list(made(tmp_path, rows)[1].indexes())).height == 100
    assert len(groups) == 3 + 6  # eight in all, and the third once more


def test_memory_does_not_grow_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits to be written is bounded by BUFFER_BYTES, however many frames come."""
    monkeypatch.setattr(parts, "BUFFER_BYTES", 20_000)
    held: list[int] = []
    concat = parts._buffered

    def watched(source: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for frame in concat(source):
            held.append(int(frame.estimated_size()))
            yield frame

    monkeypatch.setattr(parts, "_buffered", watched)
    rows = [(i, i, "v" * 20) for i in range(5_000)]
    shard_table(landing(tmp_path), "t", "subject", lambda: frames(rows, 100))
    assert len(held) > 5 and max(held) < 40_000
