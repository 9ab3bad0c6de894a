"""kill -9 of `medvec run`: whatever was under way, the next run ends where an undisturbed one does.

A moment is a number of commits that the lake has reached, and up to half a second more: so kills fall everywhere in
the work, on a fast machine and on a slow one. MEDVEC_E2E_KILLS sets how many (the suite does 6; 20 takes 5 minutes).
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from command import (
    DATASET,
    Home,
    Undisturbed,
    assert_nothing_left_over,
    commits,
    finished,
    index_state,
    lake_state,
    wait_until,
)

KILLS = int(os.environ.get("MEDVEC_E2E_KILLS", "6"))
KILLS_PER_HOME = 3
HOMES = -(-KILLS // KILLS_PER_HOME)
SEED = 20


@pytest.mark.parametrize("number", range(HOMES))
def test_killed_runs_converge_to_the_undisturbed_state(number: int, undisturbed: Undisturbed, fresh: Home) -> None:
    moments = _moments(sum(commits(undisturbed.home).values()))[number::HOMES]
    killed = [_killed_at(fresh, reached, seconds) for reached, seconds in moments]
    assert any(killed), "every run had ended before its moment"

    fresh.fine("run", "--dataset", DATASET)
    assert lake_state(fresh) == undisturbed.lake, moments
    assert index_state(fresh) == undisturbed.index, moments
    assert_nothing_left_over(fresh)


def _moments(whole: int) -> list[tuple[int, float]]:
    """(commits reached, further seconds), one in each of KILLS equal shares of the work, in order."""
    chance = random.Random(SEED)
    return [(int((i + chance.random()) / KILLS * whole), chance.uniform(0, 0.5)) for i in range(KILLS)]


def _killed_at(home: Home, reached: int, seconds: float) -> bool:
    process = home.start("run", "--dataset", DATASET, "--json")
    wait_until(lambda: sum(commits(home).values()) >= reached, process)
    time.sleep(seconds)
    process.kill()  # this process alone: Milvus Lite lives on, as it would
    return finished(process).code == -signal.SIGKILL
