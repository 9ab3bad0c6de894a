"""How much one caller may ask, and how often one address may show a wrong credential: moving windows.

    requests   one each
    cost       what a question costs by its size (`cost_of_search`), charged by its route
    failures   refused credentials of one client address. A right credential is never refused for the wrong ones of
               others behind the same address: 256 random bits need no lock-out, and it would let anybody lock others out

Counted in each worker's memory; MEDVEC_API_LIMITS_URI=redis://... counts for all workers and replicas. Where that does
not answer, nothing is answered. Does not belong here: the size of one request (api.app), how loaded the service is.
"""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItem, parse
from limits.errors import ConfigurationError, StorageError
from limits.storage import Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter
from starlette.concurrency import run_in_threadpool

from api.identity.callers import Caller, Refused, unavailable
from api.identity.windows import Windows
from resources.errors import ConfigError
from resources.settings import Settings

COST_OF_SCAN = 100  # a question that reads a whole space, not its index
HITS_OF_ONE_COST = 100  # an answer of so many hits costs one more


def cost_of_search(questions: int, limit: int) -> int:
    """1 for a question of few hits, 11 for one of the most that can be asked, 1,000."""
    return questions * (1 + limit // HITS_OF_ONE_COST)


class Limits:
    """Raises ConfigError for limits or a store that cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._rate = _parsed("MEDVEC_API_RATE_LIMIT", settings.api_rate_limit)
        self._cost = _parsed("MEDVEC_API_COST_LIMIT", settings.api_cost_limit)
        self._failures = _parsed("MEDVEC_API_FAILURE_LIMIT", settings.api_failure_limit)
        storage = _storage(settings.api_limits_uri.get_secret_value())
        self._blocks = storage is not None
        self._windows = MovingWindowRateLimiter(storage) if storage is not None else Windows()

    async def request(self, caller: Caller) -> None:
        """Counts one request of `caller`. Refused: 429 if that is one too many."""
        await self._maybe_blocking("rate", self._rate, caller.id)

    def charge(self, caller: Caller, cost: int) -> None:
        """Counts what the question costs; may block. Refused: 429 if that is too much."""
        self._hit("cost", self._cost, caller.id, cost)

    async def failure(self, address: str) -> None:
        """Counts one refused credential of `address`. Refused: 429, in place of the 401, after too many."""
        await self._maybe_blocking("failures", self._failures, _neighbourhood(address))

    async def _maybe_blocking(self, name: str, limit: RateLimitItem, who: str) -> None:
        if self._blocks:
            await run_in_threadpool(self._hit, name, limit, who, 1)
        else:
            self._hit(name, limit, who, 1)

    def _hit(self, name: str, limit: RateLimitItem, who: str, cost: int) -> None:
        try:
            if self._windows.hit(limit, name, who, cost=cost):
                return
            window = self._windows.get_window_stats(limit, name, who)
        except StorageError:
            raise unavailable("limits_unavailable") from None
        seconds = max(1, math.ceil(window.reset_time - time.time()))
        headers = {
            "Retry-After": str(seconds),
            "RateLimit-Policy": f'"{name}";q={limit.amount};w={limit.get_expiry()}',
            "RateLimit": f'"{name}";r={window.remaining};t={seconds}',
        }
        raise Refused(429, "that was more than you may ask in this time", f"limit_{name}", headers)


def _neighbourhood(address: str) -> str:
    """The address; of IPv6 its /64, which is what one host is given."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


def _parsed(setting: str, limit: str) -> RateLimitItem:
    try:
        return parse(limit)
    except ValueError:
        raise ConfigError(f"{setting} is no limit", remedy="write a number per time, such as 600/minute") from None


def _storage(uri: str) -> Storage | None:
    """Where limits are counted outside of this process; None: in it."""
    if uri == "memory://":
        return None
    try:
        storage = storage_from_string(uri, wrap_exceptions=True)
    except ConfigurationError as error:
        # Without the cause's text: a redis:// address holds its password.
        remedy = "use memory://, or redis://... with medvec[replicas] installed"
        raise ConfigError(f"MEDVEC_API_LIMITS_URI cannot be used ({type(error).__name__})", remedy=remedy) from None
    assert isinstance(storage, Storage)
    return storage
