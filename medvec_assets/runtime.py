"""The one Dagster resource: hands a run its `Context`.

Belongs here: opening settings, lake, audit and index once per process, and passing progress to whoever shows it.
Does not belong here: any stage's logic; anything done at import or at load of the code location.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

from medvec_assets.stages.context import Context, Progress, no_progress
from resources.audit import Audit
from resources.lakehouse import Lakehouse
from resources.settings import Settings


class Runtime:
    """Made at load of the code location without touching anything; every handle is opened when a run asks for it.

    `hold_index` keeps the index open (and Milvus Lite's server up) over many runs of one process.
    """

    def __init__(self, settings: Settings | None = None, progress: Progress = no_progress) -> None:
        self._settings = settings
        self.progress = progress
        self._held: object | None = None

    @cached_property
    def settings(self) -> Settings:
        return self._settings or Settings()

    @cached_property
    def lake(self) -> Lakehouse:
        return Lakehouse.open(self.settings)

    @cached_property
    def audit(self) -> Audit:
        """One for all steps of this process: it reads the heads of the chains again only when somebody else wrote."""
        return Audit(self.lake)

    @contextmanager
    def hold_index(self) -> Iterator[None]:
        from resources.vector_index import open_index

        with open_index(self.settings) as index:
            self._held = index
            try:
                yield
            finally:
                self._held = None

    @contextmanager
    def context(self, run_id: str, *, with_index: bool = False) -> Iterator[Context]:
        """A context for one step of one run."""
        with ExitStack() as stack:
            if with_index and self._held is None:
                stack.enter_context(self.hold_index())
            index = self._held if with_index else None
            ctx = Context(self.settings, self.lake, run_id, index=index, progress=self.progress)  # type: ignore[arg-type]
            ctx.audit = self.audit
            yield ctx
