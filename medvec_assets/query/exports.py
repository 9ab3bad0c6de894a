"""Counts that leave: small cells hidden, held against what left before, entered in the ledger, then written to a file.

Belongs here: what two exports together would tell. Does not belong here: what one table alone would (small_cells), the
ledger's table (resources.exports), who may ask (published).

The same question before and after one person withdrew gives two tables that are each harmless, and whose difference is that
person. So an export is refused if any count in it, or what its lines say of their hidden cells together, differs by a small
number from an earlier one. The whole is refused, not the cell hidden: a hidden cell would still be told by its line, and a
refusal tells nothing to anybody outside. Counts of sums of cells across lines are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from filelock import FileLock

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query.small_cells import ALL, counts
from resources import exports
from resources.errors import ConfigError, PolicyRefused
from resources.exports import Export, Group
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

Cells = Mapping[Group, int | None]


def answer(spec: DatasetSpec, by: Sequence[str], found: pl.DataFrame) -> dict[str, Any]:
    """`medvec count --json`, and but for its `export` the file."""
    return {"dataset": spec.id, "by": list(by), "smallest_count": spec.smallest_count, "counts": found.to_dicts()}


def export(settings: Settings, lake: Lakehouse, spec: DatasetSpec, by: Sequence[str], target: Path) -> dict[str, Any]:
    """Count subjects of `spec` and write the answer to `target`, a new file; the answer, with its number in the ledger.

    Raises PolicyRefused (rule `differencing`) where an earlier export and this one would tell a small count.
    """
    if target.exists():
        raise ConfigError(f"{target} exists", remedy="name a new file: what has left is not written over")
    settings.home.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.home / "exports.lock"):  # two at once would not be held against each other
        found = counts(lake, spec, by)
        cells = _cells(found, by)
        for earlier in exports.of_dataset(lake, spec.id):
            told = len(set(differences(cells, by, earlier, spec.smallest_count)))
            if told:
                raise PolicyRefused(
                    f"subjects of {spec.id} by {', '.join(by)}: rule 'differencing': {told} groups differ by fewer than "
                    f"{spec.smallest_count} from export {earlier.sequence} of {earlier.exported_at:%Y-%m-%d}",
                    remedy="use that export, count by fewer or other attributes, or wait for a release that changes more",
                    rule="differencing",
                )
        number = exports.enter(lake, spec.id, by, cells, spec.smallest_count)
    told_to_all = answer(spec, by, found) | {"export": number}
    draft = target.with_name(f".{target.name}.draft")
    draft.write_text(json.dumps(told_to_all, indent=2) + "\n")
    draft.replace(target)
    return told_to_all


def differences(cells: Cells, by: Sequence[str], earlier: Export, smallest: int) -> Iterator[Group]:
    """Groups of which `cells` and `earlier` together tell that 1 to `smallest` - 1 persons came or went: a count in both, or
    what a line's counts that are in both leave to those that are hidden."""
    shared = set(by) & set(earlier.dimensions)
    groups = {group for group in (*cells, *earlier.cells) if {name for name, _ in group} <= shared}
    moved = {group: _moved(cells, earlier.cells, group) for group in groups}
    lines: dict[tuple[Group, str], list[int | None]] = {}
    for group, by_how_many in moved.items():
        for name, label in group:
            lines.setdefault((group - {(name, label)}, name), []).append(by_how_many)
    for group, by_how_many in moved.items():
        if by_how_many is None:
            continue
        along = [lines.get((group, name), []) for name in shared]
        left = [by_how_many - sum(filter(None, line)) for line in along if None in line]
        if any(0 < abs(number) < smallest for number in (by_how_many, *left)):
            yield group


def _moved(cells: Cells, earlier: Cells, group: Group) -> int | None:
    """By how much a count moved; None if it is hidden in one of both. What is in no cell is known to be nobody."""
    now, before = cells.get(group, 0), earlier.get(group, 0)
    return None if now is None or before is None else now - before


def _cells(found: pl.DataFrame, by: Sequence[str]) -> dict[Group, int | None]:
    return {
        frozenset((name, row[name]) for name in by if row[name] != ALL): row["subjects"] for row in found.to_dicts()
    }
