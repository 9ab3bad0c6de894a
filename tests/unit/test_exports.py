"""What leaves is held against what left before: no two exports together tell a small count, and the ledger shows a change."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.memory_lake import MemoryLake
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from medvec_assets import printing
from medvec_assets.catalog.aou_persons import AOU_PERSONS
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.cli import app, ask
from medvec_assets.query.exports import differences, export
from medvec_assets.query.small_cells import suppressed
from medvec_assets.stages.context import Context
from resources import exports, tables
from resources.errors import ConfigError, MedvecError, PolicyRefused
from resources.exports import Export, Group
from resources.lakehouse import Lakehouse
from resources.settings import Settings

SMALLEST = 21
SPEC = TCIA_CATALOG.model_copy(update={"smallest_count": SMALLEST})
PERSONS = {("a", "F"): 40, ("a", "M"): 50, ("b", "F"): 70, ("b", "M"): 60}
Persons = dict[tuple[str, str], int]


class Site:
    """An enclave with a lake of persons, of whom some are counted out."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = Settings(home=home / "home", pseudonym_key="11" * 32)
        self.lake: Lakehouse = MemoryLake(str(home / "lake"))
        self.files = 0

    def hold(self, persons: Persons) -> None:
        constant = dict.fromkeys(tables.RECORDS.names, "-") | {"object_ids": [], "content_digests": "{}"}
        rows = [
            constant
            | {
                "record_id": f"{cohort}-{sex}-{person}",
                "subject_key": f"{cohort}-{sex}-{person}",
                "cohort": cohort,
                "partition": cohort,
                "attributes": json.dumps({"body_part": sex}),
            }
            for (cohort, sex), number in persons.items()
            for person in range(number)
        ]
        table = tables.records(SPEC.id)
        batches = pa.Table.from_pylist(rows, schema=table.schema).to_batches()
        self.lake.replace(self.lake.ensure(table), {}, batches, {})

    def export(self, *by: str) -> Path:
        self.files += 1
        target = self.home / f"export-{self.files}.json"
        export(self.settings, self.lake, SPEC, by or ("cohort", "body_part"), target)
        return target


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.hold(PERSONS)
    return made


def test_the_same_question_may_be_exported_again_and_each_time_is_entered(site: Site) -> None:
    first, second = (json.loads(site.export().read_text()) for _ in range(2))
    assert (first.pop("export"), second.pop("export")) == (0, 1)
    assert first == second and len(first["counts"]) == 9
    assert [one.dimensions for one in exports.of_dataset(site.lake, SPEC.id)] == [("cohort", "body_part")] * 2


@pytest.mark.parametrize("after", [("cohort", "body_part"), ("cohort",), ("body_part",), ("body_part", "cohort")])
@pytest.mark.parametrize("gone", [1, 20])
def test_one_withdrawal_between_two_exports_is_not_told(site: Site, gone: int, after: tuple[str, ...]) -> None:
    site.export()
    site.hold(PERSONS | {("b", "F"): 70 - gone})
    with pytest.raises(PolicyRefused, match="rule 'differencing'") as refusal:
        site.export(*after)
    assert refusal.value.rule == "differencing"
    assert len(exports.of_dataset(site.lake, SPEC.id)) == 1 and not (site.home / "export-2.json").exists()


def test_a_release_that_moves_every_count_by_enough_may_leave(site: Site) -> None:
    site.export()
    site.hold({group: number + SMALLEST for group, number in PERSONS.items()})
    site.export()


def test_every_earlier_export_counts_not_only_the_last(site: Site) -> None:
    site.export("cohort")
    site.hold({group: number + 200 for group, number in PERSONS.items()})
    site.export("cohort")
    site.hold(PERSONS | {("a", "F"): 39})
    with pytest.raises(PolicyRefused, match="export 0 of"):
        site.export("cohort")


def test_what_two_hidden_cells_are_together_is_not_told_to_have_moved(site: Site) -> None:
    """Neither total nor shown cell moved by little: the total less the shown cell did."""
    site.hold({("a", "F"): 5, ("b", "F"): 30, ("c", "F"): 400})
    told = json.loads(site.export("cohort").read_text())
    assert [row["subjects"] for row in told["counts"]] == [None, None, 400, 435]
    site.hold({("a", "F"): 5, ("b", "F"): 29, ("c", "F"): 450})
    with pytest.raises(PolicyRefused, match="differencing"):
        site.export("cohort")


def test_a_file_that_exists_is_not_written_over(site: Site) -> None:
    target = site.export()
    site.files = 0
    with pytest.raises(ConfigError, match="exists"):
        site.export()
    assert json.loads(target.read_text())["export"] == 0


counts = arrays(np.int64, (2, 3), elements=st.integers(0, 90))


def shown(inner: np.ndarray) -> dict[Group, int | None]:
    cells = np.pad(inner, ((0, 1), (0, 1)))
    cells[:, -1] = cells.sum(axis=1)
    cells[-1] = cells[:-1].sum(axis=0)
    hidden = suppressed(cells, SMALLEST)
    rows, columns = ("0", "1", None), ("0", "1", "2", None)
    return {
        frozenset((axis, label) for axis, label in (("r", row), ("c", column)) if label is not None): (
            None if hidden[place] else int(cells[place])
        )
        for place, (row, column) in zip(np.ndindex(*cells.shape), product(rows, columns), strict=True)
        if cells[place]
    }


@settings(max_examples=50, deadline=None)
@given(counts, arrays(np.int64, (2, 3), elements=st.sampled_from([0, 0, 30, 45, -25, 1])))
def test_of_two_tables_that_may_leave_no_line_tells_a_small_difference(before: np.ndarray, moved: np.ndarray) -> None:
    """What somebody subtracts who has both: cell by cell, and each line's total less what is shown of it in both."""
    first, second = shown(before), shown(np.maximum(before + moved, 0))
    earlier = Export(0, ("r", "c"), first, None)  # type: ignore[arg-type]
    if list(differences(second, ("r", "c"), earlier, SMALLEST)):
        return

    def difference(group: Group) -> int | None:
        one, other = first.get(group, 0), second.get(group, 0)
        return None if one is None or other is None else other - one

    rows = [[frozenset({("r", r), ("c", c)}) for c in "012"] + [frozenset({("r", r)})] for r in "01"]
    columns = [[frozenset({("r", r), ("c", c)}) for r in "01"] + [frozenset({("c", c)})] for c in "012"]
    rows.append([frozenset({("c", c)}) for c in "012"] + [frozenset()])
    columns.append([frozenset({("r", r)}) for r in "01"] + [frozenset()])
    for *inner, total in (*rows, *columns):
        known = [difference(group) for group in inner]
        told = [number for number in (*known, difference(total)) if number is not None]
        if (whole := difference(total)) is not None:
            told.append(whole - sum(number for number in known if number is not None))
        assert not any(0 < abs(number) < SMALLEST for number in told)


def test_an_equal_table_is_never_refused() -> None:
    cells = shown(np.array([[3, 40, 50], [60, 2, 90]]))
    assert not list(differences(cells, ("r", "c"), Export(0, ("c", "r"), cells, None), SMALLEST))  # type: ignore[arg-type]


# -- the command


def test_the_command_writes_the_file_that_may_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    site.lake = Lakehouse(site.settings.lake)
    site.hold({("a", "F"): 3})
    monkeypatch.setattr(ask, "settings_here", lambda: site.settings)
    target = tmp_path / "counts.json"
    asked = ["count", SPEC.id, "--by", "cohort", "--json"]
    seen = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert "export" not in json.loads(seen.stdout) and exports.of_dataset(site.lake, SPEC.id) == []
    done = CliRunner().invoke(app, [*asked, "--export", str(target)], catch_exceptions=False)
    assert json.loads(done.stdout) == json.loads(target.read_text()) == json.loads(seen.stdout) | {"export": 0}
    assert len(exports.of_dataset(site.lake, SPEC.id)) == 1


def test_exact_counts_of_real_persons_are_said_to_stay(tmp_path: Path) -> None:
    def stays(spec: DatasetSpec, **sources: str) -> bool:
        return Context(Settings(home=tmp_path, sources=sources), MemoryLake(str(tmp_path)), "run").counts_stay(spec)

    assert stays(AOU_PERSONS, aou_persons="/cdr/C2022Q4R13")
    assert not stays(AOU_PERSONS), "of the sample, which is made up"
    assert not stays(TCIA_CATALOG)


# -- the ledger


def test_a_changed_or_missing_row_of_the_ledger_is_named(tmp_path: Path) -> None:
    lake = Lakehouse(str(tmp_path))
    for number in (40, 70, 100):
        exports.enter(lake, SPEC.id, ["cohort"], {frozenset({("cohort", "a")}): number, frozenset(): None}, SMALLEST)
    assert exports.broken_chains(lake, SPEC.id) == []
    base = lake.ensure(tables.exports())
    rows = base.read().sort("sequence").to_dicts()
    assert Counter("a" in row["cells"] for row in rows) == {True: 3}
    rows[1]["cells"] = "[]"
    lake.replace(base, {}, pa.Table.from_pylist(rows[1:], schema=tables.EXPORTS).to_batches(), {})
    assert exports.broken_chains(lake, SPEC.id) == [
        "exports/tcia_catalog row 1: the row was changed after it was written",
        "exports/tcia_catalog row 1: its predecessor is missing",
    ]


def test_a_kill_before_the_file_enters_the_export_all_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise MedvecError("killed", remedy="")

    with monkeypatch.context() as patch, pytest.raises(MedvecError):
        patch.setattr(Path, "write_text", killed)
        site.export()
    assert len(exports.of_dataset(site.lake, SPEC.id)) == 1 and not list(site.home.glob("*.json"))


def test_a_person_is_told_what_may_leave() -> None:
    row = {"cohort": "a", "subjects": 40}
    answer = {"dataset": "d", "by": ["cohort"], "smallest_count": 21, "counts": [row]}
    assert list(printing.counts(answer))[-1].startswith("for this site only")
    assert list(printing.counts(answer | {"export": 3}))[-1] == "written, as export 3 of d"
    assert len(list(printing.counts(answer | {"smallest_count": 1}))) == 1
    listed = {"dataset": "d", "partitions": []}
    assert list(printing.partitions(listed)) == []
    assert list(printing.partitions(listed | {"for_this_site_only": True}))[-1].startswith("for this site only")
