"""A dataset's assets on an instance in memory, run and ticked for real over a small source (helpers.pipeline)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

from helpers.pipeline import Pipeline
from medvec_assets.definitions import build_defs
from medvec_assets.runtime import Runtime
from medvec_assets.stages.context import Context

MANIFEST, RECORDS, EMBEDDINGS, VECTORS = "manifest", "records", "text_embeddings", "text_vectors"
CHAIN = (RECORDS, EMBEDDINGS, VECTORS)


class PipelineRuntime(Runtime):
    """Hands out a pipeline's contexts: its counting encoder, its index in memory."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline.settings)
        self._pipeline = pipeline

    @contextmanager
    def context(self, run_id: str, *, with_index: bool = False) -> Iterator[Context]:
        ctx = self._pipeline.context()
        ctx.run_id = run_id
        if not with_index:
            ctx.index = None
        yield ctx


@dataclass
class DagsterWorld:
    """`pipeline.list_source(...)`, then `run` assets and `tick` the automation."""

    pipeline: Pipeline
    instance: dg.DagsterInstance
    cursor: Any = None
    runtime: PipelineRuntime = field(init=False)
    defs: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = PipelineRuntime(self.pipeline)
        self.defs = build_defs([self.pipeline.spec], self.runtime)

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.pipeline.spec.id, asset])

    def run(self, *assets: str, partition: str | None = None, requested: bool = False) -> dg.ExecuteInProcessResult:
        """One Dagster run of `assets` with their checks, failed or not; `requested`: one that automation asked for."""
        return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[self.key(asset) for asset in assets],
            partition_key=partition,
            raise_on_error=False,
            tags={AUTOMATION_CONDITION_TAG: "true"} if requested else None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def refresh(self) -> dg.ExecuteInProcessResult:
        return self.run(MANIFEST)

    def tick(self) -> dict[str, list[str]]:
        """One evaluation of every asset's condition: asset -> the partitions it requested."""
        result = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        requested = {
            asset: sorted(result.get_requested_partitions(self.key(asset)))
            for asset in (MANIFEST, "partitions", *CHAIN)
        }
        return {asset: names for asset, names in requested.items() if names}

    def pretend_materialized(self, assets: Iterable[str], partitions: Iterable[str]) -> None:
        """Tell Dagster, and nobody else, that these are there: quicker than running them."""
        for partition in partitions:
            for asset in assets:
                event = dg.AssetMaterialization(self.key(asset), partition=partition)
                self.instance.report_runless_asset_event(event)

    @property
    def partitions(self) -> list[str]:
        return sorted(self.instance.get_dynamic_partitions(f"{self.pipeline.spec.id}_partitions"))


def steps_that(result: dg.ExecuteInProcessResult, event_type: dg.DagsterEventType) -> list[str]:
    """The assets whose step had such an event, in order; an asset stands as often as it did."""
    found = [event.step_key for event in result.all_events if event.event_type == event_type]
    return [str(step).split("__", 1)[1] for step in found]
