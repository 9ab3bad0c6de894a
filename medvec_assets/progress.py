"""Progress on a terminal: partitions done, the stage at work, rate and time left. Piped output shows none.

Belongs here: the bars. Does not belong here: what is counted (stages, runner).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from medvec_assets.stages.context import Progress, no_progress


@dataclass(frozen=True)
class Shown:
    """The two callbacks a run feeds."""

    rows: Progress
    partitions: Progress


@contextmanager
def bars(wanted: bool = True) -> Iterator[Shown]:
    """Bars on stderr if it is a terminal; otherwise callbacks that do nothing."""
    if not wanted or not sys.stderr.isatty():
        yield Shown(no_progress, no_progress)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Rich(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as rich:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int, unit: str) -> None:
            if what not in tasks:
                tasks[what] = rich.add_task(what, rate="")
            speed = rich.tasks[rich.task_ids.index(tasks[what])].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            rich.update(tasks[what], completed=done, total=total or None, rate=rate)
            if total and done >= total and unit == "rows":
                rich.remove_task(tasks.pop(what))

        yield Shown(
            lambda what, done, total: show(what, done, total, "rows"),
            lambda dataset, done, total: show(f"{dataset} partitions", done, total, "partitions"),
        )
