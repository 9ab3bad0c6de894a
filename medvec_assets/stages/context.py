"""What every stage is given, and the two helpers all of them share.

Belongs here: the run's handles (settings, lake, index, audit) and progress. Does not belong here: any step's own logic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from medvec_assets import provenance
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.connectors import Connector, open_connector
from medvec_assets.deid.pseudonyms import Pseudonyms
from resources import policy
from resources.audit import Audit, Materialization
from resources.lakehouse import Lakehouse
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.vector_index import VectorIndex

Progress = Callable[[str, int, int], None]
"""(what, done, total) in rows."""


def no_progress(what: str, done: int, total: int) -> None:
    """Piped output, tests and pods show none."""


@dataclass
class Context:
    """One run's handles. `index` is None for stages that need no index."""

    settings: Settings
    lake: Lakehouse
    run_id: str
    index: VectorIndex | None = None
    progress: Progress = no_progress
    _connectors: dict[str, Connector] = field(default_factory=dict)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self.lake)

    def connector(self, spec: DatasetSpec) -> Connector:
        if spec.id not in self._connectors:
            self._connectors[spec.id] = open_connector(spec.connector, self.settings, spec.id)
        return self._connectors[spec.id]

    def pseudonyms(self, spec: DatasetSpec) -> Pseudonyms:
        return Pseudonyms(self.settings.pseudonym_secret, spec.source)

    def require_allowed(self, spec: DatasetSpec) -> None:
        """Raises PolicyRefused if `spec` may not be materialized at this site."""
        refusal = policy.residency_refusal(
            self.settings, spec.residency.where, spec.residency.agreement, f"dataset {spec.id}"
        )
        if refusal is not None:
            raise refusal

    def record(self, **facts: object) -> None:
        """Append one materialization, with this run and this code filled in."""
        self.audit.record(
            Materialization(
                run_id=self.run_id,
                code_version=provenance.code_version(),
                image_digest=provenance.image_digest(),
                **facts,  # type: ignore[arg-type]
            )
        )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for this stage's spools; gone when the stage ends, and nothing but speed is lost with it."""
        root = self.settings.home / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root) as folder:
            yield Path(folder)


@dataclass(frozen=True)
class Outcome:
    """What a stage did, in numbers that the audit, Dagster's metadata and the CLI share."""

    table_path: str
    table_version: int
    changed: bool
    rows_in: int = 0
    rows_out: int = 0
    computed: int = 0
    skipped: int = 0
    quarantined: int = 0
    input_digest: str = ""
    output_digest: str = ""
    seconds: float = 0.0
