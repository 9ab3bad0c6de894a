"""What every stage is given, and the helpers all of them share.

Belongs here: the run's handles (settings, lake, index, audit) and progress. Does not belong here: any step's own logic.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
from filelock import FileLock, Timeout

from medvec_assets import provenance
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.connectors import Connector, open_connector
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.scorer.verdicts import Verdicts
from resources import policy, tables
from resources.audit import Audit, ChainKey, Materialization
from resources.errors import PolicyRefused, StorageError
from resources.lakehouse import Lakehouse, Snapshot
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

    def is_synthetic(self, spec: DatasetSpec) -> bool:
        """Whether what this deployment reads for `spec` is made up."""
        return spec.is_synthetic(self.settings.sources)

    def counts_stay(self, spec: DatasetSpec) -> bool:
        """Whether exact counts of this dataset's persons are for this site only (ADR 0016)."""
        return spec.smallest_count > 1 and not self.is_synthetic(spec)

    def refusal(self, spec: DatasetSpec) -> PolicyRefused | None:
        """Why `spec` may not be here, or None if it may. Made-up data are nobody's: they may be anywhere."""
        if self.is_synthetic(spec):
            return None
        return policy.refusal(self.settings, spec.terms, datetime.now(UTC).date())

    def require_allowed(self, spec: DatasetSpec, asset: str, partition: str = "-", *, no_leak: bool = False) -> None:
        """Raises PolicyRefused if `spec` may not be worked on at this site, after the refusal was written down.

        `no_leak`: also if identifiers came through the partition's de-identification, until a later score passes.
        Dagster's blocking check stops a run there, but `medvec sync` asks no check.
        """
        refusal = self.refusal(spec)
        if refusal is None and no_leak and Verdicts(self.lake, spec.id).leaks(partition):
            refusal = PolicyRefused(
                f"{spec.id}/{asset}, partition {partition!r}: rule 'deid_leak': planted identifiers came through its "
                "de-identification when it was last scored",
                remedy=f"mend the rule that `medvec status --dataset {spec.id}` names, then medvec run: it scores again",
                rule="deid_leak",
            )
        if refusal is None:
            return
        row = {
            "dataset": spec.id,
            "asset": asset,
            "partition": partition,
            "rule": refusal.rule,
            "site": self.settings.site,
            "agreement": spec.residency.agreement or "-",
            "run_id": self.run_id,
            "refused_at": datetime.now(UTC),
        }
        self.lake.append(
            tables.refusals(), pa.Table.from_pylist([row], schema=tables.REFUSALS), {"run_id": self.run_id}
        )
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

    def transaction(self, spec: DatasetSpec, chain: ChainKey) -> tuple[str, int]:
        """What a commit of `chain` carries: the sequence of the audit row that will follow it (see `is_ahead`)."""
        head = self.audit.latest(spec.id).get(chain)
        return "/".join(chain), _following(head)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for this stage's spools; gone when the stage ends, and nothing but speed is lost with it.

        Removes what killed runs left: their locks died with them. Raises StorageError `disk_full`.
        """
        root = self.settings.home / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        for abandoned in root.glob("*.lock"):
            _remove_if_abandoned(abandoned)
        folder = root / uuid4().hex
        with FileLock(folder.with_suffix(".lock")):
            try:
                folder.mkdir()
                yield folder
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise StorageError(
                    f"the disk is full: a spool below {root} could not be written; nothing was committed",
                    remedy="free space on the volume of MEDVEC_HOME and run again: finished vectors are staged and adopted",
                    code="disk_full",
                ) from error
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                folder.with_suffix(".lock").unlink(missing_ok=True)


def is_ahead(chain: ChainKey, head: Mapping[str, Any] | None, *snapshots: Snapshot | None) -> bool:
    """Whether one of the tables holds a commit of `chain` that `head`, its newest audit row, does not tell of.

    A run killed between its commit and its audit row leaves that. What `head` says of the rows is then not true: its
    digests prove nothing, not even when the inputs have gone back to what they were.
    """
    application, following = "/".join(chain), _following(head)
    return any(table is not None and table.transaction_version(application) >= following for table in snapshots)


def _following(head: Mapping[str, Any] | None) -> int:
    return head["sequence"] + 1 if head is not None else 0


def _remove_if_abandoned(lock: Path) -> None:
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    except Timeout:
        return  # a stage of this or another process is using it


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
