"""What the commands print for a person: lines that fit any terminal and ids that can be copied whole.

Belongs here: text from a command's JSON result. Does not belong here: the JSON itself, bars (progress), errors (cli).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]
_WAY_OUT = "counts leave by `medvec count --export FILE`, which holds them against what left before"
_NOT_CURRENT = (("running", "in a run"), ("unasked", "never asked for"))
_TOLD = ("modality", "body_part", "series_description", "study_description")


def run(result: Result) -> Iterator[str]:
    yield f"done in {result['seconds']:.1f} s"
    for name, done in result["datasets"].items():
        yield f"{name}: {done['partitions']:,} partitions, {done['records']:,} records, {done['quarantined']:,} quarantined"
        for space, totals in done["spaces"].items():
            yield (
                f"  {space}: {totals['embeddings_computed']:,} embedded, {totals['embeddings_skipped']:,} known already; "
                f"index: {totals['vectors_upserted']:,} written, {totals['vectors_deleted']:,} deleted, "
                f"{totals['vectors_unchanged']:,} unchanged"
            )
        yield from _stays(done)


def _stays(told: Result) -> Iterator[str]:
    """Exact counts of persons are told to who works at the site: told, too, that they end there."""
    if told.get("for_this_site_only"):
        yield f"for this site only: {_WAY_OUT}"


def roles(result: Result) -> Iterator[str]:
    for role, privileges in result["roles"].items():
        yield f"{role}: {', '.join(privileges)}"
    yield "give a user one of them: create_user(name, password), grant_role(name, role)"


def _told(attributes: dict[str, Any]) -> list[str]:
    """What a radiologist would say of a series; of anything else each attribute by its name."""
    series = [str(attributes[name]) for name in _TOLD if attributes.get(name)]
    others = [f"{name} {value}" for name, value in attributes.items() if name not in (*_TOLD, "synthetic")]
    return series if any(attributes.get(name) for name in _TOLD[1:]) else [*series, *others]


def hits(result: Result) -> Iterator[str]:
    for number, hit in enumerate(result["hits"], 1):
        told = " · ".join(_told(hit["attributes"]))
        same = f", stands for {hit['members']:,} with the same content" if hit["members"] > 1 else ""
        yield f"{number:3}. {hit['score']:.3f}  {told or hit['record_id']}"
        made_up = ", synthetic" if hit["attributes"].get("synthetic") else ""
        yield f"     {hit['dataset']} / {hit['cohort']}, {hit['license']}{made_up}{same}"
        if hit.get("group") is not None:
            yield f"     {hit['group']}, {hit['group_size']} hits seen"
        yield f"     {hit['source_uri']}"
        yield f"     {hit['encoder']} (weights {hit['weights_digest'][:12]}), Delta version {hit['delta_version']}"
        yield f"     medvec lineage {hit['vector_id']}"
    if not result["hits"]:
        yield "nothing found"


def replayed(result: Result) -> Iterator[str]:
    yield from hits(result)
    if not result["complete"]:
        yield "not complete: something that stood among the hits was withdrawn or suppressed since"


def verify(result: Result) -> Iterator[str]:
    for one in result["collections"]:
        yield (
            f"{'ok  ' if one['ok'] else 'FAIL'}  {one['collection']}: {one['desired']:,} desired, {one['indexed']:,} indexed, "
            f"{one['missing']:,} missing, {one['extra']:,} extra, {one['stale']:,} stale in {one['partitions']:,} partitions; "
            f"{one['vectors_differ']:,} of {one['vectors_compared']:,} vectors read back differ"
        )
        yield from (f"      not as planned for its size: {unlike}" for unlike in one["layout"])
        yield from _recall(one["recall"])
    if not result["collections"]:
        yield "no collection yet: medvec run"
    if not result["ok"]:
        yield f"What to do: {_mend(result['collections'])}"


def _mend(collections: list[Result]) -> str:
    if any(one["vectors_differ"] for one in collections):
        return "medvec sync --vectors"
    held = [one for one in collections if one["indexed"] == one["desired"] and not one["missing"] and not one["stale"]]
    if all(one["ok"] or one in held for one in collections):  # all that is left is recall
        return "raise nprobe (HNSW: ef_search) of the space in its spec, then medvec sync"
    return "medvec sync --full"


def _recall(scopes: list[Result]) -> Iterator[str]:
    for scope in scopes:
        width = ", ".join(f"{name} {scope[name]}" for name in ("ef", "nprobe") if scope[name]) or "exact search"
        yield f"  recall@10 {scope['recall']:.4f} in {scope['scope']} ({scope['entities']:,} entities, {width})"


def promoted(result: Result) -> Iterator[str]:
    for one in result["spaces"]:
        shown = ", ".join(one["collections"])
        before = f" instead of {', '.join(one['previous'])}" if one["changed"] else " already"
        yield f"{one['dataset']} {one['space']}: readers see {shown} ({one['space_version']}){before}"
        yield from _recall(one["recall"])


def generations(result: Result) -> Iterator[str]:
    for one in result["generations"]:
        yield f"{one['state']:9} {one['collection']}  {one['space_version']}  since {one['created_at']:%Y-%m-%d}"
    if not result["generations"]:
        yield "no collection yet: medvec run"


def maintained(result: Result) -> Iterator[str]:
    for one in result["tables"]:
        yield (
            f"{one['table']}: {one['files_before']:,} files, now {one['files_after']:,}; "
            f"{one['files_deleted']:,} old ones deleted"
        )
        yield from (f"  left for next time, runs committed meanwhile: {name}" for name in one["skipped"])
    yield from (f"{name}: the index gives up its deleted entities" for name in result["compacted"])
    if result["staged_removed"]:
        yield f"staging: {result['staged_removed']:,} segments that nobody wants deleted"
    if result["landed_bytes_removed"]:
        yield f"landed: {result['landed_bytes_removed'] / 1e9:,.2f} GB of earlier releases deleted"
    if result["payloads_removed"]:
        yield f"payloads: {result['payloads_removed']:,} that no record names deleted"
    if not result["tables"]:
        yield "no table yet: medvec run"


def sync(result: Result) -> Iterator[str]:
    yield (
        f"{len(result['partitions']):,} partitions: {result['upserted']:,} written, {result['deleted']:,} deleted, "
        f"{result['unchanged']:,} unchanged"
    )


def partitions(result: Result) -> Iterator[str]:
    width = max((len(one["partition"]) for one in result["partitions"]), default=0)
    for one in result["partitions"]:
        reason = f": {one['reason']}" if one["reason"] else ""
        size = f"{one['size_bytes'] / 1e9:,.1f} GB"
        yield f"{one['partition']:{width}}  {one['objects']:>9,} objects  {size:>12}  {one['state']}{reason}"
    yield from _stays(result)


def status(result: Result) -> Iterator[str]:
    for one in result["datasets"]:
        counts = f"{one['current']:,} of {one['partitions']:,} partitions current"
        counts += "".join(f", {one[name]:,} {told}" for name, told in _NOT_CURRENT if one[name])
        yield f"{'ok  ' if one['ok'] else 'FAIL'}  {one['dataset']}: {one['note'] or counts}"
        for found in one["problems"]:
            yield f"      {found['name']}: {found['count']:,}, {'broken' if found['broken'] else 'stale'}: {found['what']}"
            yield from (f"        {thing}" for thing in found["sample"])
            if found["count"] > len(found["sample"]) > 0:
                yield "        ..."
            yield f"        What to do: {found['remedy']}"


def deidentified(result: Result) -> Iterator[str]:
    done = f"{result['written']:,} written, {result['unchanged']:,} unchanged"
    yield f"{result['files']:,} files in {result['seconds']:.1f} s: {done}"
    yield from (f"  quarantined, {code}: {count:,}" for code, count in result["quarantined"].items())
    yield ", ".join(f"{action} {count:,}" for action, count in result["actions"].items()) or "nothing was de-identified"


def doctor(result: Result) -> Iterator[str]:
    for check in result["checks"]:
        yield f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['detail']}"
        if not check["ok"]:
            yield f"      What to do: {check['remedy']}"


def lineage(result: Result) -> Iterator[str]:
    yield json.dumps(result, indent=2, default=str)


def counts(answer: dict[str, Any]) -> Iterator[str]:
    least, hidden = answer["smallest_count"], False
    for row in answer["counts"]:
        hidden |= row["subjects"] is None
        shown = "hidden" if row["subjects"] is None else f"{row['subjects']:,}"
        yield f"  {shown:>12}  " + " · ".join(str(row[name]) for name in answer["by"])
    if hidden:
        yield f"hidden: fewer than {least}, or what would tell such a count"
    if "export" in answer:
        yield f"written, as export {answer['export']} of {answer['dataset']}"
    else:
        yield from _stays({"for_this_site_only": least > 1})


def access_log(result: Result) -> Iterator[str]:
    for fault in result["faults"]:
        event = f"event {fault['sequence']}" if fault["sequence"] >= 0 else "segment"
        yield f"FAIL  {fault['writer']} {event} (segment {fault['segment']}): {fault['detail']} [{fault['rule']}]"
    for torn in result["torn"]:
        yield f"note  {torn}"
    for writer in result["killed"]:
        yield f"note  {writer} was killed; what it answered is here"
    for writer in result["elsewhere"]:
        yield f"note  the end of {writer} is at another place: verify there, too"
    yield (
        f"{'ok' if result['ok'] else 'the access log does not stand'}: {result['events']:,} events of {result['writers']:,} "
        f"writers, {result['sealed_segments']:,} segments sealed, {result['open_segments']:,} open"
    )
    yield f"seals are signed with Ed25519, public key {result['public_key']}"


def sealed(result: Result) -> Iterator[str]:
    for one in result["sealed"]:
        ended = f", {one['ended']}" if one["ended"] else ""
        yield f"{one['writer']}: {one['segments']:,} segments, {one['events']:,} events{ended}"
    if not result["sealed"]:
        yield "nothing to seal: what a running service writes, it seals itself"


def harvesting(result: Result) -> Iterator[str]:
    for one in result["alerts"]:
        yield (
            f"{one['rule']:5}  {one['who'] or 'unknown'} in {one['dataset']}: {one['subjects']:,} subjects "
            f"({one['share']:.1%}) by {one['questions']:,} questions, {one['since']} to {one['until']}"
        )
    if not result["alerts"]:
        yield "nobody walks through a dataset"
