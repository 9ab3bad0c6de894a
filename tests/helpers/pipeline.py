"""One dataset's whole chain in one process: the real stages on a small source, a counting encoder, an index in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from helpers.counting_encoder import CountingEncoders, Killed
from helpers.memory_index import MemoryIndex
from helpers.tiny_source import MemoryConnector, write_index
from medvec_assets import partitions
from medvec_assets.catalog.spec import DatasetSpec, Space
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.stages import due, embeddings, manifest, records, retire, vectors
from medvec_assets.stages.context import Context, Outcome
from medvec_assets.stages.staging import Staging
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec

SPACE = "text"
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def small_spec(**changes: Any) -> DatasetSpec:
    """tcia_catalog with an encoder that needs no weights."""
    return TCIA_CATALOG.model_copy(
        update={"spaces": {SPACE: Space(encoder="tiny@1")}, "sample_cohorts": None} | changes
    )


def bytes_spec(**changes: Any) -> DatasetSpec:
    """A dataset of text files in memory; needs the `bytes_modality` fixture."""
    return small_spec(modality="bytes", **changes)


@dataclass
class Pipeline:
    """`list_source` (or `connector`), then `run`; single stages by name. Every stage is a run of its own."""

    home: Path
    encoders: CountingEncoders
    spec: DatasetSpec = field(default_factory=small_spec)
    connector: MemoryConnector | None = None
    index: MemoryIndex = field(default_factory=MemoryIndex)
    open_lake: Callable[[str], Lakehouse] = Lakehouse
    runs: int = 0

    def __post_init__(self) -> None:
        source = self.home / "source" / "idc_index.parquet"
        self.settings = Settings(
            home=self.home / "home", sources={self.spec.id: str(source)}, pseudonym_key="11" * 32, device="cpu"
        )
        self.lake = self.open_lake(self.settings.lake)

    def list_source(self, *rows: dict[str, Any]) -> None:
        write_index(self.home / "source" / "idc_index.parquet", rows)

    def context(self) -> Context:
        self.runs += 1
        ctx = Context(self.settings, self.lake, f"run-{self.runs}", index=self.index)  # type: ignore[arg-type]
        if self.connector is not None:
            ctx._connectors[self.spec.id] = self.connector
        return ctx

    # -- stages

    def refresh(self, *split: str) -> manifest.Refreshed:
        return manifest.refresh(self.context(), self.spec, split)

    def records(self, partition: str) -> Outcome:
        return records.build(self.context(), self.spec, partition)

    def embeddings(self, partition: str) -> Outcome:
        return embeddings.build(self.context(), self.spec, SPACE, partition)[self.spec.spaces[SPACE].version]

    def vectors(self, partition: str, *, full: bool = False) -> list[vectors.Synced]:
        return vectors.build(self.context(), self.spec, SPACE, partition, full=full)

    def due(self) -> dict[str, str]:
        """partition -> the first asset that has something to do, or `current`."""
        return {state.partition: state.state for state in due.partition_states(self.context(), self.spec)}

    def run(self, *split: str) -> None:
        """What `medvec run` does, without Dagster."""
        if split:
            self.refresh(*split)
        self.refresh()
        for partition, state in self.due().items():
            chain = [records.ASSET, embeddings.asset_name(SPACE), vectors.asset_name(SPACE)]
            steps: list[Callable[[str], Any]] = [self.records, self.embeddings, self.vectors]
            for step in steps[chain.index(state) :] if state != "current" else []:
                step(partition)
        retire.retire(self.context(), self.spec)

    # -- what stands

    def read(self, table: TableSpec) -> pl.DataFrame:
        snapshot = self.lake.snapshot(table)
        return snapshot.read() if snapshot else pl.DataFrame(schema=pl.Schema(table.schema))

    @property
    def manifest(self) -> pl.DataFrame:
        return self.read(tables.manifest(self.spec.id))

    @property
    def plan(self) -> pl.DataFrame:
        return self.read(tables.partitions(self.spec.id))

    @property
    def silver(self) -> pl.DataFrame:
        return self.read(tables.records(self.spec.id))

    @property
    def gold(self) -> pl.DataFrame:
        return self.read(tables.embeddings(self.spec.id, SPACE))

    @property
    def quarantine(self) -> pl.DataFrame:
        return self.read(tables.quarantine(self.spec.id))

    @property
    def entities(self) -> dict[str, dict[str, Any]]:
        """The entities of all collections by id."""
        return {e: entity for held in self.index.held.values() for e, entity in held.entities.items()}

    def staged(self) -> list[str]:
        folder = Path(self.lake.root) / "staging"
        return sorted(path.name for path in folder.rglob("*") if path.is_file())

    def versions(self) -> dict[str, int]:
        """Every table's version: equal before and after means that nothing was committed."""
        spec = self.spec
        found = [
            tables.manifest(spec.id),
            tables.partitions(spec.id),
            tables.quarantine(spec.id),
            tables.records(spec.id),
            tables.embeddings(spec.id, SPACE),
            tables.materializations(),
            tables.index_receipts(),
            tables.index_recall(),
            tables.generations(),
        ]
        snapshots = {table.path: self.lake.snapshot(table) for table in found}
        return {path: snapshot.version if snapshot else -1 for path, snapshot in snapshots.items()}

    def site(self, **settings: Any) -> None:
        """Go on under other settings."""
        self.settings = self.settings.model_copy(update=settings)

    def suppress(self, subject_ref: str, source: str | None = None) -> None:
        """`source`: what the row names, whatever source the key is of."""
        key = self.context().pseudonyms(self.spec).subject(subject_ref)
        row = {"subject_key": key, "reason": "withdrawn", "since": EPOCH, "source": source or self.spec.source}
        self.lake.append(tables.suppression(), pa.Table.from_pylist([row], schema=tables.SUPPRESSION), {})

    def scored(self, partition: str, *, leaks: int = 0, failure: str = "") -> None:
        """A score of these numbers, without scoring."""
        row: dict[str, Any] = {field.name: "-" if field.type == pa.string() else 0 for field in tables.DEID_SCORES}
        row |= {"dataset": self.spec.id, "partition": partition, "leaks": leaks, "failure": failure}
        row |= {
            "leak_places": '["mrn of file name in silver/records"]' if leaks else "[]",
            "scored_at": datetime.now(UTC),
        }
        self.lake.append(tables.deid_scores(), pa.Table.from_pylist([row], schema=tables.DEID_SCORES), {})

    # -- accidents

    @contextmanager
    def killed_at_write(self, number: int) -> Iterator[None]:
        """End the process at the write of this number, counted from 0: a commit, an append, a staged file, an entity."""
        left = number

        def tick() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            lake = type(self.lake)
            for owner, name in ((lake, "replace"), (lake, "append"), (Staging, "put")):
                patch.setattr(owner, name, _ticking(getattr(owner, name), tick))
            patch.setattr(self.index, "on_change", tick)
            yield

    @contextmanager
    def killed_before_commit_of(self, table: TableSpec) -> Iterator[None]:
        """End the process where it would replace rows of `table`."""
        owner = type(self.lake)
        replace = owner.replace

        def refuse(lake: Lakehouse, base: Any, *args: Any, **kwargs: Any) -> Any:
            if base.spec.path == table.path:
                raise Killed
            return replace(lake, base, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, "replace", refuse)
            yield

    @contextmanager
    def killed_before_audit(self) -> Iterator[None]:
        """End the process after its commit, before the audit is told."""
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Context, "record", _killed)
            yield


def leaf_of(spec: DatasetSpec, names: Iterable[str], cohort: str, subject_ref: str) -> str:
    """The partition of `names` that holds a subject."""
    frame = pl.DataFrame({"cohort": [cohort], "subject_ref": [subject_ref]})
    return str(partitions.assign(frame, [partitions.Partition.parse(name) for name in names], spec.source).item())


def _killed(*args: Any, **kwargs: Any) -> None:
    raise Killed


def _ticking(method: Any, tick: Any) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        tick()
        return method(*args, **kwargs)

    return wrapped
