"""When a collection is settled: at once, or once at the end of much work on a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from resources.vector_index.settling import Settling


def settling(*, lite: bool) -> tuple[Settling, list[str]]:
    """With no server behind it, and the names of what it flushed."""
    flushed: list[str] = []

    def call(what: str, _: Any) -> None:
        if what.startswith("flush"):
            flushed.append(what.removeprefix("flush "))

    made = Settling(SimpleNamespace(lite=lite, call=call))  # type: ignore[arg-type]
    made._ensure_index = made._await_index = made._load = lambda name: None  # type: ignore[method-assign, assignment]
    return made, flushed


def test_on_a_server_it_is_put_off_to_the_end_and_done_once_for_each_collection() -> None:
    index, flushed = settling(lite=False)
    with index.settled_once():
        for name in ("b", "a", "b"):
            index.settle(name)
            with index.settled_once():
                index.settle(name)
        assert flushed == []
    assert flushed == ["a", "b"]
    index.settle("b")
    assert flushed == ["a", "b", "b"]


def test_lite_settles_at_once() -> None:
    index, flushed = settling(lite=True)
    with index.settled_once():
        index.settle("a")
        assert flushed == ["a"]
    assert flushed == ["a"]


def test_work_that_failed_is_not_waited_for() -> None:
    index, flushed = settling(lite=False)
    with pytest.raises(KeyError), index.settled_once():
        index.settle("a")
        raise KeyError
    assert flushed == []
    index.settle("a")
    assert flushed == ["a"], "the next one settles at once again"
