"""A snapshot of everything Dagster is told: what an upgrade or an edit changes shows as a diff of asset_specs.json.

After an intended change: MEDVEC_UPDATE_SNAPSHOTS=1 python -m pytest tests/unit/test_asset_specs.py, and read the diff.
"""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from medvec_assets.catalog import CATALOG
from medvec_assets.definitions import defs

SNAPSHOT = Path(__file__).with_name("asset_specs.json")
REPOSITORY = defs.get_repository_def()
GRAPH = REPOSITORY.asset_graph


def test_assets_checks_jobs_and_schedules_are_the_ones_of_the_snapshot() -> None:
    found = json.dumps(_everything(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("MEDVEC_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(found)
    wanted = SNAPSHOT.read_text() if SNAPSHOT.exists() else ""
    if found != wanted:
        diff = difflib.unified_diff(
            wanted.splitlines(), found.splitlines(), "asset_specs.json", "now", lineterm="", n=8
        )
        pytest.fail(
            "\n".join([*diff, "", "If this is meant: run again with MEDVEC_UPDATE_SNAPSHOTS=1 and commit the file."]),
            pytrace=False,
        )


@pytest.mark.parametrize("key", sorted(GRAPH.get_all_asset_keys()), ids=lambda key: key.to_user_string())
def test_every_asset_has_an_owner_a_description_and_a_name_that_parses(key: dg.AssetKey) -> None:
    node = GRAPH.get(key)
    assert node.owners and node.description and node.kinds
    dataset, asset = key.path
    if dataset == "audit":  # of all datasets
        assert (asset, node.group_name) == ("lineage_report", "audit")
        return
    (spec,) = [spec for spec in CATALOG if spec.id == dataset]
    names = {"upstream", "manifest", "partitions", "records"}
    assert asset in names | {f"{space}_{what}" for space in spec.spaces for what in ("embeddings", "vectors")}
    assert node.group_name == spec.source


def test_the_step_pod_of_an_embeddings_asset_gets_a_gpu() -> None:
    """Step pods ignore run tags: what counts is what Dagster renders of the op's tags."""
    from dagster_k8s import DagsterK8sJobConfig, construct_dagster_k8s_job
    from dagster_k8s.job import get_user_defined_k8s_config

    for spec in CATALOG:
        for space in spec.spaces:
            op = GRAPH.get(dg.AssetKey([spec.id, f"{space}_embeddings"])).assets_def.op
            config = DagsterK8sJobConfig(job_image="medvec", dagster_home="/opt/dagster")
            job = construct_dagster_k8s_job(
                config, ["dagster"], "step", user_defined_k8s_config=get_user_defined_k8s_config(op.tags)
            )
            (container,) = job.spec.template.spec.containers
            assert container.resources.limits == {"nvidia.com/gpu": "1"}


def _everything() -> dict[str, Any]:
    return {
        "assets": {key.to_user_string(): _asset(key) for key in GRAPH.get_all_asset_keys()},
        "jobs": {
            job.name: {
                "description": job.description,
                "selects": sorted(_name(key) for key in _selected(job)),
            }
            for job in REPOSITORY.get_all_jobs()
            if not job.name.startswith("__ASSET_JOB")
        },
        "schedules": {
            schedule.name: {
                "job": schedule.job_name,
                "cron": schedule.cron_schedule,
                "timezone": schedule.execution_timezone,
                "status": schedule.default_status.value,
            }
            for schedule in REPOSITORY.schedule_defs
        },
        "sensors": {sensor.name: sensor.default_status.value for sensor in REPOSITORY.sensor_defs},
    }


def _selected(job: dg.JobDefinition) -> set[dg.AssetKey | dg.AssetCheckKey]:
    layer = job.asset_layer
    return {key for data in layer.data for key in layer.get_selected_entity_keys_for_node(data.node_handle)}


def _name(key: dg.AssetKey | dg.AssetCheckKey) -> str:
    if isinstance(key, dg.AssetCheckKey):
        return f"{key.asset_key.to_user_string()}:{key.name}"
    return key.to_user_string()


def _asset(key: dg.AssetKey) -> dict[str, Any]:
    node = GRAPH.get(key)
    computed = node.is_executable
    condition, freshness, backfill = node.automation_condition, node.freshness_policy, node.backfill_policy
    op = node.assets_def.op if computed else None
    policy = op.retry_policy if op else None
    return {
        "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
        "kind_of_asset": "materializable" if node.is_materializable else "observable" if computed else "external",
        "description": node.description,
        "group": node.group_name,
        "owners": sorted(node.owners),
        "kinds": sorted(node.kinds),
        "tags": {name: value for name, value in node.tags.items() if not name.startswith("dagster/kind")},
        "partitions": node.partitions_def.name if node.partitions_def else None,
        "code_version": node.code_version,
        "checks": {
            check.name: {
                "blocking": GRAPH.get(check).blocking,
                "description": GRAPH.get(check).description,
                "partitions": partitions.name if (partitions := GRAPH.get(check).partitions_def) else None,
            }
            for check in node.check_keys
        },
        "automation": condition.get_label() if condition else None,
        "freshness": str(freshness.fail_window.to_timedelta()) if freshness else None,
        "backfill_policy": str(backfill) if backfill else None,
        "pool": sorted(node.pools or ()),
        "pod": dict(op.tags) if op else {},
        "retries": [policy.max_retries, policy.delay, policy.backoff.value, policy.jitter.value] if policy else None,
    }
