"""Concurrent calls that become one: every caller gets the answers to its own items, whoever asked for them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.query.search.coalescing import Coalescer


class Gate:
    """A call that waits to be let go, and remembers what each call was of."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.open.wait(30)
        return [item * 10 for item in items]


def queued(coalescer: Coalescer, key: str, count: int) -> None:
    while len(coalescer._queues.get(key, ())) < count:
        threading.Event().wait(0.001)


@settings(max_examples=30, deadline=None)
@given(
    asked=st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(), max_size=5)), max_size=40),
    most=st.integers(1, 8),
    threads=st.integers(1, 8),
)
def test_everybody_gets_their_own_answers(asked: list[tuple[str, list[int]]], most: int, threads: int) -> None:
    coalescer = Coalescer(most)
    sizes: list[int] = []

    def ask(one: tuple[str, list[int]]) -> list[str]:
        key, items = one

        def call(batch: list[int]) -> Sequence[str]:
            sizes.append(len(batch))
            return [f"{key}{item}" for item in batch]

        return coalescer.ask(key, items, call)[0]

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(ask, asked))
    assert answers == [[f"{key}{item}" for item in items] for key, items in asked]
    assert max(sizes, default=0) <= max([most, *(len(items) for _, items in asked)])
    assert coalescer._queues == {}


def test_what_comes_while_a_call_is_in_flight_goes_together() -> None:
    coalescer, gate = Coalescer(4), Gate()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(coalescer.ask, "k", [0], gate)
        assert gate.entered.wait(30)
        others = []
        for number in range(1, 7):
            others.append(pool.submit(coalescer.ask, "k", [number], gate))
            queued(coalescer, "k", number)
        gate.open.set()
        assert first.result(30) == ([0], 1)
        told = [one.result(30) for one in others]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [results for results, _ in told] == [[number * 10] for number in range(1, 7)]
    assert [together for _, together in told] == [4, 4, 4, 4, 2, 2]


def test_another_key_does_not_wait() -> None:
    coalescer, gate = Coalescer(4), Gate()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(coalescer.ask, "k", [0], gate)
        assert gate.entered.wait(30)
        assert coalescer.ask("other", [1], lambda items: items) == ([1], 1)
        gate.open.set()
        assert first.result(30) == ([0], 1)


def test_an_error_reaches_those_who_went_along_and_nobody_after() -> None:
    coalescer, gate = Coalescer(4), Gate()

    def broken(items: list[int]) -> list[int]:
        raise ValueError("broken")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(coalescer.ask, "k", [0], gate)
        assert gate.entered.wait(30)
        others = []
        for number in (1, 2):
            others.append(pool.submit(coalescer.ask, "k", [number], broken))
            queued(coalescer, "k", number)
        gate.open.set()
        assert first.result(30) == ([0], 1)
        for one in others:
            with pytest.raises(ValueError, match="broken"):
                one.result(30)
    assert coalescer.ask("k", [3], lambda items: items) == ([3], 1)
