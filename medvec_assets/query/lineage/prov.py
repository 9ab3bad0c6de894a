"""A chain as W3C PROV (PROV-JSON): what was derived from what, by which run, with which software and weights.

    entity    vector, embedding row, record, source objects, upstream release, encoder weights, de-identification profile
    activity  the runs that made them
    agent     the code of those runs

Belongs here: this mapping. Does not belong here: finding the chain (chain), other forms.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prov.model import ProvActivity, ProvDocument, ProvEntity

NAMESPACE = "urn:medvec:"
# What each layer's commit makes, in the data's order.
_LAYERS = ("manifest", "records", "embeddings", "vectors")


def as_json(told: dict[str, Any]) -> str:
    return str(document(told).serialize(format="json", indent=2))


def document(told: dict[str, Any]) -> ProvDocument:
    from prov.model import ProvDocument

    made = ProvDocument()
    made.add_namespace("medvec", NAMESPACE)
    runs = _activities(made, told)
    manifest = made.entity(_name("manifest", told["upstream"]["dataset"]), {"prov:type": "medvec manifest"})
    release = _entity(made, "release", told["upstream"]["dataset"], told["upstream"], ("source", "version", "citation"))
    objects = [_entity(made, "object", one["object_id"], one, _OBJECT) for one in told["objects"]]
    record = _entity(made, "record", told["record"]["record_id"], told["record"], _RECORD)
    row = _entity(made, "embedding", told["vector"]["vector_id"], told["embedding"], _EMBEDDING)
    vector = _entity(
        made, "vector", told["vector"]["entity_id"], told["vector"], ("vector_id", "collection", "partition")
    )
    weights = _entity(made, "weights", told["embedding"]["weights_digest"], told["embedding"], ("encoder",))
    profile = _entity(made, "deid_profile", told["record"]["deid_profile"], {}, ())
    made.wasDerivedFrom(manifest, release, activity=runs.get("manifest"))
    for one in objects:
        made.hadMember(release, one)
        made.wasDerivedFrom(record, one, activity=runs.get("records"))
    made.wasDerivedFrom(row, record, activity=runs.get("embeddings"))
    made.wasDerivedFrom(vector, row, activity=runs.get("vectors"))
    for layer, entity in (("manifest", manifest), ("records", record), ("embeddings", row), ("vectors", vector)):
        if layer in runs:
            made.wasGeneratedBy(entity, runs[layer])
    for layer, used in (("manifest", release), ("records", manifest), ("records", profile), ("embeddings", weights)):
        if layer in runs:
            made.used(runs[layer], used)
    return made


_OBJECT = ("uri", "checksum", "checksum_kind", "size_bytes", "license", "upstream_version", "first_seen_version")
_RECORD = ("cohort", "partition", "license", "access_tier", "deid_profile", "deid_actions", "content_digests")
_EMBEDDING = (
    "run_id",
    "created_at",
    "space_version",
    "content_digest",
    "fingerprint",
    "preprocessing",
    "dim",
    "part_kind",
    "part_index",
    "license",
)


def _activities(made: ProvDocument, told: dict[str, Any]) -> dict[str, ProvActivity]:
    """One activity for each layer's commit, associated with the code that ran."""
    runs: dict[str, ProvActivity] = {}
    agents = {
        version: made.agent(_name("code", version), {"prov:type": made.valid_qualified_name("prov:SoftwareAgent")})
        for version in dict.fromkeys(one["code_version"] for one in told["commits"])
    }
    for commit in told["commits"]:
        layer = commit["asset"].rsplit("_", 1)[-1]
        facts = _facts(commit, ("table", "version", "run_id", "image_digest", "row_hash"))
        runs[layer] = made.activity(
            _name("run", f"{commit['run_id']}/{commit['asset']}"), None, commit["committed_at"], facts
        )
        made.wasAssociatedWith(runs[layer], agents[commit["code_version"]])
    earlier = [runs[layer] for layer in _LAYERS if layer in runs]
    for before, after in pairwise(earlier):
        made.wasInformedBy(after, before)
    return runs


def _entity(made: ProvDocument, kind: str, name: str, row: dict[str, Any], columns: tuple[str, ...]) -> ProvEntity:
    facts: dict[Any, Any] = {"prov:type": f"medvec {kind}", **_facts(row, columns)}
    return made.entity(_name(kind, name), facts)


def _facts(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    return {f"medvec:{name}": _value(row[name]) for name in columns if row.get(name) is not None}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in sorted(value.items())) or "none"
    return value


def _name(kind: str, name: str) -> str:
    """A qualified name; what PROV-N does not allow in one is percent-encoded."""
    from urllib.parse import quote

    return f"medvec:{kind}/{quote(str(name), safe='/')}"
