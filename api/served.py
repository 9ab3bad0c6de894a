"""How a route is run: what its signature takes from the request alone is read off it, the rest is left to FastAPI.

Belongs here: running a route for little. Does not belong here: which dependencies there are and who may call (auth).

FastAPI describes a route by its signature, and would solve eight dependencies for a search, a third of the time that the
event loop spends on it. None of ours needs solving: each is a function of the request. So FastAPI is given the same route
without them to run, and JSON is read by pydantic's parser, in a tenth of the time for a vector.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json

Read = Callable[[Request], Any]
_REQUEST = "request"
_ANSWERING = tuple(
    f"response_model_{name}"
    for name in ("include", "exclude", "by_alias", "exclude_unset", "exclude_defaults", "exclude_none")
)


def lean(route: APIRoute, reads: Mapping[Callable[..., Any], Read]) -> APIRoute:
    """`route` with what `reads` has (dependency -> what is called for it, in the loop) read off the request."""
    read = {str(one.name): reads[one.call] for one in route.dependant.dependencies if one.call and one.call in reads}
    return APIRoute(
        route.path,
        _reading(route.endpoint, read),
        response_model=route.response_model,
        status_code=route.status_code,
        response_class=route.response_class,
        **{name: getattr(route, name) for name in _ANSWERING},
    )


def _reading(endpoint: Callable[..., Any], read: Mapping[str, Read]) -> Callable[..., Any]:
    """`endpoint` with `read` in place of the parameters of these names; in a thread, if it is no coroutine function."""
    signature = inspect.signature(endpoint, eval_str=True)
    left = [one for name, one in signature.parameters.items() if name not in read]
    asks = _REQUEST in signature.parameters
    if not asks:
        left.append(inspect.Parameter(_REQUEST, inspect.Parameter.KEYWORD_ONLY, annotation=Request))

    is_coroutine = inspect.iscoroutinefunction(endpoint)

    async def run(**given: Any) -> Any:
        request: Request = given[_REQUEST] if asks else given.pop(_REQUEST)
        call = partial(endpoint, **given, **{name: of(request) for name, of in read.items()})
        if is_coroutine:
            return await call()
        threads: ThreadPoolExecutor = request.state.threads
        return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, call)

    run.__name__, run.__doc__ = endpoint.__name__, endpoint.__doc__
    run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    return run


class Arriving(Request):
    """A request whose JSON is read fast. What pydantic's parser does not take is left to the usual one, which also says
    what is wrong with it."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = from_json(await self.body())
            except ValueError:
                return await super().json()
        return self._json
