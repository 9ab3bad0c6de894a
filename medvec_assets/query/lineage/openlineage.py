"""A chain as OpenLineage run events: one COMPLETE event for each layer's commit, upstream first.

A Dagster run makes several assets, and OpenLineage has one job to a run: a commit's run id is derived from the run and
the asset, and the Dagster run is its parent.

Belongs here: this mapping, with the client's own classes, whose validators see every value. Does not belong here: sending
events anywhere, finding the chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, RunEvent

NAMESPACE = "medvec"
PRODUCER = "urn:medvec:lineage"


def events(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The events as JSON objects."""
    from openlineage.client.serde import Serde

    return [Serde.to_dict(one) for one in run_events(told)]


def run_events(told: dict[str, Any]) -> list[RunEvent]:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import parent_run, processing_engine_run

    made: list[RunEvent] = []
    inputs: list[InputDataset] = _source(told)
    for commit in told["commits"]:
        job = _job(told["vector"]["dataset"], commit["asset"])
        parent = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=_run_id(commit["run_id"])),
            job=parent_run.Job(namespace=NAMESPACE, name="dagster"),
            producer=PRODUCER,
        )
        engine = processing_engine_run.ProcessingEngineRunFacet(
            version=commit["code_version"], name="medvec", producer=PRODUCER
        )
        run = Run(
            runId=str(uuid5(NAMESPACE_URL, f"{commit['run_id']}/{job.name}")),
            facets={"parent": parent, "processing_engine": engine},
        )
        output = OutputDataset(NAMESPACE, commit["table"], _facets(told, commit))
        made.append(
            RunEvent(
                eventType=RunState.COMPLETE,
                eventTime=commit["committed_at"],
                run=run,
                job=job,
                inputs=inputs,
                outputs=[output],
                producer=PRODUCER,
            )
        )
        inputs = [InputDataset(NAMESPACE, commit["table"], _facets(told, commit))]
    return made


def _job(dataset: str, asset: str) -> Job:
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import job_type_job

    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="DAGSTER", jobType="ASSET", producer=PRODUCER
    )
    return Job(NAMESPACE, f"{dataset}/{asset}", {"jobType": kind})


def _source(told: dict[str, Any]) -> list[InputDataset]:
    """The release, and the objects of this chain, each with its checksum."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import dataset_version_dataset, documentation_dataset

    upstream = told["upstream"]
    facets: dict[str, Any] = {
        "documentation": documentation_dataset.DocumentationDatasetFacet(
            description=f"{upstream['title']}. {upstream['citation']}", producer=PRODUCER
        ),
    }
    if upstream["version"]:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=upstream["version"], producer=PRODUCER
        )
    found = [InputDataset(upstream["source"], upstream["dataset"], facets)]
    for one in told["objects"]:
        version = dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=f"{one['checksum_kind']}:{one['checksum']}", producer=PRODUCER
        )
        tags = _tags({"license": one["license"], "access_tier": one["access_tier"], "release": one["upstream_version"]})
        own: dict[str, Any] = {"version": version, "tags": tags}
        found.append(InputDataset(upstream["source"], one["object_id"], own))
    return found


def _facets(told: dict[str, Any], commit: dict[str, Any]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    facts = {
        "license": told["record"]["license"],
        "access_tier": told["record"]["access_tier"],
        "upstream_version": commit["upstream_version"],
        "encoder": commit["encoder"],
        "weights_digest": commit["weights_digest"],
        "deid_profile": commit["deid_profile"],
        "image_digest": commit["image_digest"],
        "audit_row_hash": commit["row_hash"],
    }
    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=str(commit["version"]), producer=PRODUCER
        ),
        "tags": _tags(facts),
    }


def _tags(facts: dict[str, Any]) -> Any:
    from openlineage.client.facet_v2 import tags_dataset

    found = [
        tags_dataset.TagsDatasetFacetFields(key=name, value=str(value), source="medvec")
        for name, value in facts.items()
        if value not in (None, "", "-")
    ]
    return tags_dataset.TagsDatasetFacet(tags=found, producer=PRODUCER)


def _run_id(run_id: str) -> str:
    """A run's own UUID; one derived from it where it is not Dagster's."""
    try:
        return str(UUID(run_id))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, run_id))
