"""Genotypes in a folder or a bucket that is laid out as a release of the 1000 Genomes Project is.

Belongs here: which files and samples there are, whose they are by the panel file, licences, what is read again.
Does not belong here: VCF itself (vcf_file), whether a sample's calls are good (modalities.genotypes decides and rejects).

    ALL.chr22.phase3_(...).genotypes.vcf.gz, .tbi      bgzipped VCF with its index, as many as there are; also of several
                                                       chromosomes. `*.sites.vcf.gz` hold no samples and are left alone
    integrated_call_samples_v3.20130502.ALL.panel      sample, pop, super_pop, gender, by tabs
    LICENSE                                            its first line is the licence; the project's own bucket has none

Only files beside the panel count: a release has others, on other builds, in the folders below. One object is one sample of
one file (ADR 0013): `(...).vcf.gz#HG00096`, its bytes as modalities.genotypes.calls spells them. A file's calls are read in
one pass, and the small table of them is kept (landing) by the file's etag, for `read` and for a run that was killed.

A public bucket, s3://1000genomes/release/20130502, is read without keys: AWS_SKIP_SIGNATURE=true, AWS_REGION=us-east-1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc

from medvec_assets.connectors import LISTING, Listing, sample_folder, vcf_file
from medvec_assets.connectors.landing import Landing
from medvec_assets.fingerprints import set_digest
from medvec_assets.json_columns import json_objects
from medvec_assets.modalities.genotypes.reference import NAME, reference
from resources.errors import ObjectRejected, SourceError, SourceUnavailable
from resources.object_store import ObjectInfo, ObjectStore
from resources.settings import Settings

TABLE_VERSION = "calls-1"  # of the tables that are kept: moves when the same file would make another
PUBLIC_BUCKET, PUBLIC_LICENSE = "s3://1000genomes", "IGSR open data"
LICENSE_FILE, UNSPECIFIED = "LICENSE", "unspecified"
MAX_SMALL_BYTES = 64 << 20  # of a licence, a panel or an index: the largest known is an index of 0.2 MB
CHUNK_BYTES = 16 << 20  # of a file that is fetched
NO_VERSION = "observed"
MEDIA_TYPE = "text/x-genotype-calls"
_VCF, _INDEX, _SITES_ONLY = ".vcf.gz", ".tbi", ".sites.vcf.gz"
_MARK = f"{_VCF}#"  # before a sample
_PANEL = re.compile(r"integrated_call_samples[^/]*\.panel")
_PANEL_COLUMNS = ("sample", "pop", "super_pop", "gender")
_PANEL_ROW = re.compile(r"[!-~]{1,100}\t[A-Za-z0-9_-]{1,20}\t[A-Za-z0-9_-]{1,20}\t(male|female)")
_RELEASE = re.compile(r"v\d+[a-z]?\.\d{8}")  # `v5b.20130502` in a file's name
_NOTED = {"etag": pl.String(), "block": pl.String(), "columns": pl.Int64(), "reference": pl.String()}


@dataclass(frozen=True)
class _File:
    vcf: ObjectInfo
    index: ObjectInfo | None

    @property
    def etag(self) -> str:
        """Of the pair: a file whose index was mended is read again."""
        return f"{self.vcf.etag}+{self.index.etag if self.index else ''}"


@dataclass(frozen=True)
class _Table:
    """A file's kept calls, mapped and not read: what its samples share, each one's own, and which row is whose."""

    head: bytes
    calls: memoryview
    places: dict[str, slice]
    """sample -> its calls among `calls`"""


@dataclass(frozen=True)
class _Release:
    """The files of a source that count, from one listing of it."""

    files: dict[str, _File]  # by the VCF's URI, in the order of their keys
    panels: tuple[ObjectInfo, ...]
    license: ObjectInfo | None

    def facts(self) -> Iterator[str]:
        infos = [info for file in self.files.values() for info in (file.vcf, file.index)]
        for info in [*infos, *self.panels, self.license]:
            if info is not None:
                yield f"{info.uri} {info.size_bytes} {info.etag}"


def open_connector(settings: Settings, dataset_id: str) -> VcfObjects:
    """The release at MEDVEC_SOURCES' entry for this dataset, a folder or s3://, or the sample bundle."""
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    return VcfObjects(ObjectStore(source), Landing(settings, dataset_id))


class VcfObjects:
    """Connector of dataset kgp_genotypes (medvec_assets.connectors.Connector)."""

    is_remote = False  # what crosses the web is landed here, file by file; a sample's bytes come from the table kept

    def __init__(self, store: ObjectStore, landing: Landing) -> None:
        self._store = store
        self._landing = landing
        self._release: _Release | None = None
        self._open: dict[str, _Table] = {}  # by the file's URI without its ending

    def version(self) -> str:
        """A digest of the files' URIs, sizes and etags and of the panel of sites; reads no file."""
        release = self._seen()
        return f"listing-{set_digest([*release.facts(), reference().digest])[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """A file's samples after another's. Raises SourceError where a file, its index or the panel file is not what it
        says, and `source_empty` where no file holds a site of the panel of sites."""
        release = self._seen()
        panel = _read_panel(self._store, release.panels)
        license, known = self._license(release), _known(previous)
        blocks: dict[str, str] = {}
        for uri, file in release.files.items():
            samples = known.get((uri, file.etag))
            if samples is None:
                samples = self._observed(file)
            if samples is None or samples.is_empty():
                continue
            block = str(samples["block"][0])
            if block in blocks:
                raise SourceError(
                    f"two files hold {block}: {blocks[block]} and {file.vcf.key}",
                    code="block_twice",
                    remedy="keep one release's file of each chromosome in the folder; put others elsewhere",
                )
            blocks[block] = file.vcf.key
            yield Listing(_listing(file, samples.join(panel, on="sample", how="left", maintain_order="left"), license))
        if not blocks:
            # Not an empty listing: that would withdraw every sample because of one mistyped prefix.
            remedy = "name the folder that holds the .vcf.gz files themselves in MEDVEC_SOURCES"
            raise SourceError("no VCF here holds a site of the panel of sites", code="source_empty", remedy=remedy)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One sample's calls by its manifest URI. Raises ObjectRejected, also for a URI of another place."""
        release = self._release or self._seen()
        place, mark, sample = uri.partition(_MARK)
        table = self._open.get(place) or self._opened(release, place)
        own = table.places.get(sample) if table and mark else None
        if table is None or own is None:
            raise _missing()
        data = table.head + table.calls[own]
        if len(data) > max_bytes:
            remedy = "raise the limit: the panel of sites has become longer"
            raise ObjectRejected("a sample's calls are too long", code="object_too_large", remedy=remedy)
        return data

    def _seen(self) -> _Release:
        """What the source lists now, remembered for `read`."""
        top = {info.key: info for info in self._store.list() if "/" not in info.key}
        keys = sorted(key for key in top if key.endswith(_VCF) and not key.endswith(_SITES_ONLY))
        files = {top[key].uri: _File(top[key], top.get(f"{key}{_INDEX}")) for key in keys}
        panels = tuple(info for key, info in sorted(top.items()) if _PANEL.fullmatch(key))
        self._release, self._open = _Release(files, panels, top.get(LICENSE_FILE)), {}
        return self._release

    def _license(self, release: _Release) -> str:
        if release.license is not None:
            text = self._store.get(LICENSE_FILE, MAX_SMALL_BYTES)
            return text.decode("utf-8", "replace").partition("\n")[0].strip() or UNSPECIFIED
        return PUBLIC_LICENSE if f"{self._store.uri}/".startswith(f"{PUBLIC_BUCKET}/") else UNSPECIFIED

    # ------------------------------------------------------------ one file

    def _observed(self, file: _File) -> pl.DataFrame | None:
        """(sample, block, columns, size_bytes, sha256) of a file that is new or changed; None if no site is of its
        chromosomes."""
        block = self._block(file)
        if block is None:
            return None
        with pa.memory_map(str(self._table_file(file))) as source:
            table = pa.ipc.open_file(source).read_all().drop_columns(["calls"])
        found = pl.from_arrow(table)
        assert isinstance(found, pl.DataFrame)
        return found.with_columns(block=pl.lit(block), columns=pl.lit(found.height, pl.Int64))

    def _block(self, file: _File) -> str | None:
        if file.index is None:
            remedy = f"put {file.vcf.key}{_INDEX} beside it (tabix -p vcf makes it)"
            raise SourceError(f"the VCF {file.vcf.key} has no index", code="vcf_no_index", remedy=remedy)
        return vcf_file.block_of(self._store.get(file.index.key, MAX_SMALL_BYTES), file.vcf.key, reference())

    def _opened(self, release: _Release, place: str) -> _Table | None:
        """Found once per file: asking the disk for every sample takes 40 us, and what is left 1."""
        file = release.files.get(f"{place}{_VCF}")
        if file is None:
            return None
        table = pa.ipc.open_file(pa.memory_map(str(self._table_file(file)))).read_all()
        calls = table["calls"].combine_chunks()
        _, offsets, data = calls.buffers()
        ends = np.frombuffer(offsets or b"", np.int32)[: len(calls) + 1].tolist()
        places = dict(zip(table["sample"].to_pylist(), map(slice, ends, ends[1:]), strict=True))
        self._open[place] = _Table(table.schema.metadata[vcf_file.HEAD], memoryview(data or b""), places)
        return self._open[place]

    def _table_file(self, file: _File) -> Path:
        name = f"{TABLE_VERSION} {reference().digest} {file.vcf.uri} {file.vcf.size_bytes} {file.etag}"
        return self._landing.made(name, partial(self._make_table, file))

    def _make_table(self, file: _File, path: Path) -> None:
        block = self._block(file)
        if block is None or file.index is None:
            raise _missing()
        vcf, index = self._local(file.vcf), self._local(file.index)
        table = vcf_file.read_calls(vcf, index, file.vcf.key, block, reference())
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    def _local(self, info: ObjectInfo) -> Path:
        """A path at which htslib can read the object: its own, or a copy that is kept by its etag."""
        if self._store.folder is not None:
            return self._store.folder / info.key
        return self._landing.made(f"{info.uri} {info.size_bytes} {info.etag}", partial(self._fetch, info))

    def _fetch(self, info: ObjectInfo, path: Path) -> None:
        with path.open("wb") as file:
            while file.tell() < info.size_bytes:
                chunk = self._store.get_range(info.key, file.tell(), min(CHUNK_BYTES, info.size_bytes - file.tell()))
                if not chunk:
                    break
                file.write(chunk)
        # The chunks are of one object only if it is the same at the end: a release may change in the middle.
        now = next((one.etag for one in self._store.list(after=info.key[:-1]) if one.key == info.key), None)
        if now != info.etag:
            remedy = "run again: the source is changing it"
            raise SourceUnavailable(f"{info.key} changed while it was fetched", remedy=remedy)


def _missing() -> ObjectRejected:
    remedy = "refresh the manifest: it names a file or a sample that is not in this source"
    return ObjectRejected("the object is not in this source", code="object_missing", remedy=remedy)


def _known(previous: pl.DataFrame) -> dict[tuple[str, str], pl.DataFrame]:
    """(file's URI, etag) -> its samples as `_observed` gives them, of files that the last manifest holds complete."""
    if previous.is_empty():
        return {}
    noted = previous["attributes"].str.json_decode(pl.Struct(_NOTED)).struct.unnest()
    rows = pl.concat([previous.drop("attributes"), noted], how="horizontal").filter(pl.col("reference") == NAME)
    rows = rows.select(
        "block", "columns", "size_bytes", "etag", sample="subject_ref", sha256="checksum",
        file=pl.col("uri").str.replace(r"\.vcf\.gz#.*$", _VCF),
    )  # fmt: skip
    groups = rows.partition_by("file", "etag", as_dict=True, include_key=False)
    # A sample that left an earlier state of the file still has its row, as a tombstone: then the count is not right.
    return {
        (str(uri), str(etag)): group for (uri, etag), group in groups.items() if {*group["columns"]} == {group.height}
    }


def _listing(file: _File, samples: pl.DataFrame, license: str) -> pl.DataFrame:
    """LISTING of one file. `samples`: `_observed` with the panel's labels, null where it does not list the sample."""
    release = _RELEASE.search(file.vcf.key)
    version = release[0] if release else NO_VERSION
    values = {
        "object_id": pl.format("{}.{}", "block", "sample"),
        "cohort": pl.col("block"),
        "uri": pl.format("{}#{}", pl.lit(file.vcf.uri), "sample"),
        "size_bytes": pl.col("size_bytes"),
        "checksum": pl.col("sha256"),
        "checksum_kind": pl.lit("sha256"),
        "media_type": pl.lit(MEDIA_TYPE),
        "license": pl.lit(license),
        "access_tier": pl.lit("open"),
        "subject_ref": pl.col("sample"),
        "record_ref": pl.format("{}.{}", "block", "sample"),
        "upstream_version": pl.lit(version),
        "first_seen_version": pl.lit(version),
        "removed_in_version": pl.lit(None, pl.String),
        "attributes": json_objects(
            block=pl.col("block"),
            columns=pl.col("columns"),
            etag=pl.lit(file.etag),
            population=pl.col("population"),
            reference=pl.lit(NAME),
            sex=pl.col("sex"),
            superpopulation=pl.col("superpopulation"),
        ),
    }
    return samples.select(values[name].alias(name) for name in LISTING)


def _read_panel(store: ObjectStore, panels: tuple[ObjectInfo, ...]) -> pl.DataFrame:
    """(sample, population, superpopulation, sex). SourceError if there is not one panel file, or it is not laid out so."""
    if len(panels) != 1:
        remedy = (
            "put the release's integrated_call_samples_(...).ALL.panel, and no other of that name, beside the VCF files"
        )
        raise SourceError(f"there are {len(panels)} panel files, not one", code="panel_missing", remedy=remedy)
    name = panels[0].key
    lines = store.get(name, MAX_SMALL_BYTES).decode("utf-8", "replace").splitlines()
    if not lines or tuple(lines[0].split("\t")[:4]) != _PANEL_COLUMNS:
        raise _panel_refused(name, f"does not begin with the columns {', '.join(_PANEL_COLUMNS)}, by tabs")
    rows = [line.rstrip("\t") for line in lines[1:] if line.strip()]
    wrong = next((number for number, row in enumerate(rows, 2) if not _PANEL_ROW.fullmatch(row)), None)
    if wrong is not None or not rows:
        raise _panel_refused(name, f"has a wrong row (number {wrong})" if wrong else "lists no sample")
    columns = ("sample", "population", "superpopulation", "sex")
    found = pl.DataFrame([row.split("\t") for row in rows], dict.fromkeys(columns, pl.String()), orient="row")
    if found["sample"].n_unique() != found.height:
        raise _panel_refused(name, "lists a sample twice")
    return found


def _panel_refused(name: str, what: str) -> SourceError:
    remedy = "a row is sample, population, superpopulation and male or female, by tabs: fetch the file again"
    return SourceError(f"the panel file {name} {what}", code="panel_invalid", remedy=remedy)
