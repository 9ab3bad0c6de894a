"""`medvec doctor`: is this installation able to do its job, and if not, what to do.

Belongs here: cheap probes of every resource, each with a remedy. Does not belong here: repairing anything.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from medvec_assets.catalog import CATALOG
from medvec_assets.stages.context import Context
from medvec_assets.stages.verify import layouts
from resources import encoders, exports
from resources.audit import Audit
from resources.errors import IndexInvalid, IntegrityError, MedvecError
from resources.lakehouse import Lakehouse
from resources.object_store import ObjectStore
from resources.settings import Settings

MIN_FREE_BYTES = 5 << 30  # the demo's lake, index and scratch take under 1 GB; an index build wants room beside it


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> dict[str, Any]:
    """Every check, in the order in which things depend on each other."""
    checks = [
        _tried("home", lambda: _home(settings)),
        _tried("disk", lambda: _disk(settings)),
        _tried("lake", lambda: _lake(settings)),
        *_s3(settings),
        _tried("index", lambda: _index(settings)),
        *(_tried(f"encoder {ref}", partial(_encoder, settings, ref)) for ref in _encoder_refs()),
        *(_tried(f"source {spec.id}", partial(_source, settings, spec)) for spec in CATALOG),
        _tried("audit", lambda: _audit(settings)),
    ]
    return {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}


def _tried(name: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, True, probe())
    except MedvecError as error:
        return Check(name, False, error.message, error.remedy)
    except OSError as error:
        return Check(name, False, f"{type(error).__name__}: {error.strerror}", "check the path and its permissions")


def _home(settings: Settings) -> str:
    settings.home.mkdir(parents=True, exist_ok=True)
    probe = settings.home / f".probe-{uuid.uuid4()}"
    probe.write_bytes(b"medvec")
    probe.unlink()
    _ = settings.pseudonym_secret  # raises ConfigError if it is no key
    return f"{settings.home} is writable and holds a pseudonym key"


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.home).free
    if free < MIN_FREE_BYTES:
        raise IntegrityError(
            f"{free / 1e9:.1f} GB are free below {settings.home}",
            remedy=f"free at least {MIN_FREE_BYTES / 1e9:.0f} GB, or point MEDVEC_HOME elsewhere",
            code="disk_low",
        )
    return f"{free / 1e9:.0f} GB free"


def _lake(settings: Settings) -> str:
    store, key = ObjectStore(settings.lake), f"staging/.probe-{uuid.uuid4()}"
    store.put(key, b"medvec")
    try:
        if store.get(key, 64) != b"medvec":
            raise IntegrityError("the lake gave back other bytes than were put", remedy="do not use this endpoint")
    finally:
        store.delete(key)
    return f"{settings.lake} can be written, read and deleted from"


def _s3(settings: Settings) -> Iterator[Check]:
    if settings.lake.startswith("s3://"):
        from resources.s3_probe import S3Probe

        for name, probe in S3Probe(settings.lake).probes().items():
            yield _tried(f"lake {name}", probe)


def _index(settings: Settings) -> str:
    from resources.vector_index import open_index

    with open_index(settings) as index:
        names = index.collections()
        foreign = [name for name in names if index.describe(name) is None]
        if foreign:
            raise IndexInvalid(f"collection {foreign[0]} cannot be described", remedy="drop it, then medvec sync")
        ctx = Context(settings, Lakehouse.open(settings), "doctor", index=index)
        for name, unlike in [found for spec in CATALOG for found in layouts(ctx, spec).items()]:
            raise IndexInvalid(
                f"collection {name} is not laid out as planned for its size: {'; '.join(unlike)}",
                remedy="give the space this layout in its spec to keep it, or drop the collection and run medvec sync",
                code="index_layout",
            )
        return f"{index.server} at {settings.index} answers and holds {len(names)} collections"


def _encoder_refs() -> Iterator[str]:
    yield from sorted({space.encoder for spec in CATALOG for space in spec.spaces.values()})


def _encoder(settings: Settings, ref: str) -> str:
    encoder = encoders.load(ref, settings)
    card = encoder.card
    claim = "medical" if card.medical else "general-purpose, not medical"
    return (
        f"{card.dim}-d, {encoder.precision} on {encoder.device}, weights {card.weights_digest[:12]} verified, {claim}"
    )


def _source(settings: Settings, spec: Any) -> str:
    from medvec_assets.connectors import open_connector

    return f"publishes {open_connector(spec.connector, settings, spec.id).version()}"


def _audit(settings: Settings) -> str:
    lake = Lakehouse.open(settings)
    audit = Audit(lake)
    broken = [
        fault for spec in CATALOG for fault in (*audit.broken_chains(spec.id), *exports.broken_chains(lake, spec.id))
    ]
    if broken:
        raise IntegrityError(
            f"{len(broken)} faults in audit/materializations and audit/exports, the first: {broken[0]}",
            remedy="keep the lake as it is and compare with a backup: somebody changed the record of lineage or of exports",
        )
    return "every chain of audit/materializations and audit/exports holds"
