"""What is asked again of an index server, and what is told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymilvus import MilvusException
from tenacity import nap

from resources.errors import IndexInvalid, MedvecError
from resources.vector_index import connection
from resources.vector_index.connection import PATIENT, Connection

MOVING = "failed to get delegator -1 for channel by-dev-rootcoord-dml_10: can not find client of node -1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(connection, "_client", lambda *_: object())
    monkeypatch.setattr(nap.time, "sleep", lambda _: None)
    return Connection("http://127.0.0.1:1", "", lite=False, remedy="start it", is_alive=lambda: True)


def failing(times: int, error: Exception) -> tuple[Callable[[Any], str], list[Exception]]:
    left = [error] * times

    def request(_: Any) -> str:
        if left:
            raise left.pop()
        return f"{len(left)} left"

    return request, left


@pytest.mark.parametrize("error", [MilvusException(65535, MOVING), MilvusException(8, "rate limit")])
def test_what_passes_is_asked_again(server: Connection, error: Exception) -> None:
    request, _ = failing(PATIENT.attempts - 1, error)
    assert server.call("search x", request) == "0 left"


@pytest.mark.parametrize(
    "error", [MilvusException(65535, "field y does not exist"), MilvusException(1100, "bad filter")]
)
def test_what_stays_is_told_at_once(server: Connection, error: Exception) -> None:
    request, left = failing(PATIENT.attempts, error)
    with pytest.raises(MedvecError) as told:
        server.call("search x", request)
    assert isinstance(told.value, IndexInvalid) and len(left) == PATIENT.attempts - 1
