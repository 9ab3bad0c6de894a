"""Every connector, killed with -9 in the middle of its first listing, goes on: nothing that was read is read again.

The process is killed when it opens an object of the source, or asks a stand-in for one, for the n-th time; then it is run
again on the same home, and killed again, until it ends. What it lists must be what an undisturbed listing lists, and each
object must have been read once in all, but for those in whose reading it was killed.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue
from typing import Any

import polars as pl
import pytest
from helpers.dicom_files import folder as package_folder
from helpers.dicom_files import real
from helpers.listing_process import PIECE, TABLE, Job, listed, started
from helpers.vcf_files import release
from standins import bigquery, gdc, ncbi, physionet
from standins.azure_blob import SAS, AzureStandIn
from standins.dnanexus import TOKEN, DnanexusStandIn
from standins.nbia import NbiaStandIn

from medvec_assets.catalog import CATALOG
from medvec_assets.connectors import mimic_tables, omop, sample_folder

DICOM, RUNS = "tcia_radiology", "sra_runs"
TOKENS = {"ukb": TOKEN, "aimi": SAS, "gdc": gdc.TOKEN, "physionet": physionet.CREDENTIAL}
CONSTANTS = {
    f"medvec_assets.connectors.{name}": value
    for name, value in {
        "nbia.WORKERS": 1,  # or what the others had just read when one was killed would be left to chance
        "nbia.REQUESTS_PER_SECOND": 1e4,
        "dnanexus.REQUESTS_PER_SECOND": 1e4,
        "gdc.REQUESTS_PER_SECOND": 1e4,
        "physionet.REQUESTS_PER_SECOND": 1e4,
        "eutils.REQUESTS_PER_SECOND": 1e4,
        "sra_places.FILES_PER_SECOND": 1e4,
        "geo_series.FILES_PER_SECOND": 1e4,
        "gdc.PAGE_FILES": 5,
        "idc_index.ROWS_PER_LISTING": 2,
    }.items()
}


class Requests(list[Any]):
    """A stand-in's log. `name`: of the object that a request asks for, None for another; the request for the object
    numbered `kill_at` kills the process that `started` tells of."""

    def __init__(self, name: Callable[[Any], str | None]) -> None:
        super().__init__()
        self.name = name
        self.kill_at = 0
        self.started: Queue[BaseProcess] = Queue()

    def names(self) -> list[str]:
        return [name for one in self if (name := self.name(one)) is not None]

    def append(self, item: Any) -> None:
        super().append(item)
        if self.kill_at and self.name(item) is not None and len(self.names()) == self.kill_at:
            self.started.get(timeout=10).kill()  # before it is answered: it never runs again


@dataclass(frozen=True)
class Source:
    """`objects`: how many objects of the source are read for what is listed. `kills`: at which object of each run."""

    job: Job
    objects: Callable[[pl.DataFrame], int] = lambda expected: expected.height
    kills: tuple[int, ...] = (3, 2)
    requests: Requests | None = None


def job(dataset: str, source: Path | str, *watched: str, **constants: object) -> Job:
    event, pattern = watched or ("", "")
    return Job(dataset, str(source), TOKENS, CONSTANTS | constants, (event, pattern) if watched else None)


def digested(expected: pl.DataFrame) -> int:
    return expected.filter(pl.col("checksum_kind").is_in(["sha256", "md5"])).height


def mimic_files(_: pl.DataFrame) -> int:
    return len({path for one in mimic_tables.TABLES.values() for path in (one.path, one.titles) if path})


# ---------------------------------------------------------------- folders


def dicom_folder(_: Path) -> AbstractContextManager[Source]:
    return nullcontext(Source(job(DICOM, sample_folder(DICOM), "open", r"/in/[^/]+/(?!LICENSE)[^/]+$")))


def idc_bucket_layout(tmp_path: Path) -> AbstractContextManager[Source]:
    index = pl.scan_parquet(package_folder("idc_index_data", "idc_index.parquet"))
    for uuid in index.select("crdc_series_uuid").head(3).collect().to_series():
        (tmp_path / "idc" / uuid).mkdir(parents=True)
        for instance in range(2):
            (tmp_path / "idc" / uuid / f"{instance}.dcm").write_bytes(real("CT_small.dcm"))
    return nullcontext(Source(job(DICOM, tmp_path / "idc", "open", r"/idc/.*\.dcm$")))


def idc_index(_: Path) -> AbstractContextManager[Source]:
    """Its objects are rows; what is counted are its pieces, which are made again."""
    return nullcontext(Source(job("tcia_catalog", sample_folder("tcia_catalog"), PIECE, ""), lambda _: 4, (1, 1)))


def aimi_mirror(_: Path) -> AbstractContextManager[Source]:
    return nullcontext(Source(job("aimi_chest_xray", sample_folder("aimi_chest_xray"), "open", r"/in/.*\.(jpg|png)$")))


def ukb_mount(_: Path) -> AbstractContextManager[Source]:
    return nullcontext(Source(job("ukb_brain_mri", sample_folder("ukb_brain_mri"), "open", r"/in/.*_20252_")))


def gdc_folder(_: Path) -> AbstractContextManager[Source]:
    """No object is read: each one's checksum is published. What is counted are pieces, as of `idc_index`."""
    source = job("gdc_rna_seq", sample_folder("gdc_rna_seq"), PIECE, "")
    return nullcontext(Source(source, lambda expected: -(-expected.height // 5), (1, 1)))


def geo_mirror(_: Path) -> AbstractContextManager[Source]:
    source = job("geo_expression", sample_folder("geo_expression"), "open", r"_series_matrix\.txt\.gz$")
    return nullcontext(Source(source, lambda expected: expected["cohort"].n_unique(), (2,)))


def sra_mirror(_: Path) -> AbstractContextManager[Source]:
    return nullcontext(Source(job(RUNS, sample_folder(RUNS), "open", r"/in/.*\.fastq\.gz$"), digested))


def vcf_folder(tmp_path: Path) -> AbstractContextManager[Source]:
    source = job("kgp_genotypes", release(tmp_path / "in"), "open", r"\.vcf\.gz$")
    return nullcontext(Source(source, lambda expected: expected["cohort"].n_unique(), (2,)))


def mimic_tables_mirror(_: Path) -> AbstractContextManager[Source]:
    return nullcontext(Source(job("mimic_stays", sample_folder("mimic_stays"), "open", r"\.csv\.gz$"), mimic_files))


def mimic_notes_mirror(_: Path) -> AbstractContextManager[Source]:
    source = job("mimic_notes", sample_folder("mimic_notes"), "open", r"\.csv\.gz$")
    return nullcontext(Source(source, lambda expected: expected["cohort"].n_unique(), (2,)))


def omop_parquet(_: Path) -> AbstractContextManager[Source]:
    source = job("aou_persons", sample_folder("aou_persons"), TABLE, r"/(?!cdm_source)\w+\.parquet$")
    return nullcontext(Source(source, lambda _: len(omop.TABLES) + 1))


# ---------------------------------------------------------------- services


def served(source: Job, standin: Any, name: Callable[[Any], str | None], *kills: int) -> Source:
    standin.seen = Requests(name)
    return Source(source, digested, kills, standin.seen)


@contextmanager
def nbia_service(_: Path) -> Iterator[Source]:
    """An image is asked for twice: for its MD5 to list it, and for itself."""

    def name(request: Any) -> str | None:
        image = next(
            (request.params[key] for key in ("SOPInstanceUid", "SOPInstanceUID") if key in request.params), None
        )
        return f"{request.path} {image}" if image else None

    with NbiaStandIn(sample_folder(DICOM)) as standin:
        found = served(job(DICOM, standin.base), standin, name, 3, 2, len(standin.images))
        yield replace(found, objects=lambda expected: 2 * expected.height)


@contextmanager
def aimi_container(_: Path) -> Iterator[Source]:
    with AzureStandIn(sample_folder("aimi_chest_xray")) as standin:
        standin.without_md5 = {one for one in standin.blobs if "/valid/" in one}
        is_image = (".jpg", ".png")
        name = lambda request: request.path if request.path.endswith(is_image) else None  # noqa: E731
        yield served(job("aimi_chest_xray", standin.base), standin, name, 3, 2, 9)


@contextmanager
def ukb_platform(_: Path) -> Iterator[Source]:
    with DnanexusStandIn(sample_folder("ukb_brain_mri")) as standin:
        name = lambda request: request.path if request.path.startswith("/F/D/") else None  # noqa: E731
        yield served(job("ukb_brain_mri", standin.address), standin, name, 3, 2)


@contextmanager
def gdc_service(_: Path) -> Iterator[Source]:
    with gdc.serving(sample_folder("gdc_rna_seq")) as standin:
        name = lambda path: path if path.startswith("/data/") else None  # noqa: E731
        yield served(job("gdc_rna_seq", standin.url), standin, name, 3, 2)


def _file(seen: ncbi.Seen) -> str | None:
    return seen.path if seen.method == "GET" and seen.path.endswith(".gz") else None


@contextmanager
def geo_service(_: Path) -> Iterator[Source]:
    files = {path.name: path.read_bytes() for path in sample_folder("geo_expression").rglob("*.gz")}
    matrices = {name.partition("_")[0]: {name: data} for name, data in files.items()}
    with ncbi.serving(ncbi.World(matrices=matrices)) as standin:
        uri = standin.source(f"series={','.join(matrices)}", f"&files={standin.base}")
        found = served(job("geo_expression", uri), standin, _file, 2)
        yield replace(found, objects=lambda expected: expected["cohort"].n_unique())


@contextmanager
def sra_service(_: Path) -> Iterator[Source]:
    with ncbi.serving(ncbi.mirrored_runs(sample_folder(RUNS))) as standin:
        uri = standin.source("studies=SRP900000001,SRP900000002", f"&reads={standin.base}/reads")
        yield served(job(RUNS, uri), standin, _file, 3, 2)


@contextmanager
def mimic_tables_service(_: Path) -> Iterator[Source]:
    root = next(sample_folder("mimic_stays").rglob("files"))
    with physionet.serving(root) as standin:
        name = lambda seen: seen[0] if seen[0].endswith(".gz") else None  # noqa: E731
        found = served(job("mimic_stays", standin.url("mimiciv", "3.1")), standin, name, 3, 2)
        yield replace(found, objects=mimic_files)


def omop_bigquery(_: Path) -> AbstractContextManager[Source]:
    folder = next(sample_folder("aou_persons").iterdir())
    client = {"google.cloud.bigquery.Client": partial(bigquery.Client, folder)}
    source = f"bigquery://{bigquery.PROJECT}.{folder.name}"
    asked = job("aou_persons", source, TABLE, r"^SELECT (?!.*cdm_source`$)", **client)
    return nullcontext(Source(asked, lambda _: len(omop.TABLES) + 1))


CASES: dict[str, list[Callable[[Path], AbstractContextManager[Source]]]] = {
    "aimi": [aimi_mirror, aimi_container],
    "dicom_objects": [dicom_folder, idc_bucket_layout, nbia_service],
    "gdc": [gdc_folder, gdc_service],
    "geo_series": [geo_mirror, geo_service],
    "idc_index": [idc_index],
    "mimic_notes": [mimic_notes_mirror],
    "mimic_tables": [mimic_tables_mirror, mimic_tables_service],
    "omop": [omop_parquet, omop_bigquery],
    "sra_runs": [sra_mirror, sra_service],
    "ukb_rap": [ukb_mount, ukb_platform],
    "vcf_objects": [vcf_folder],
}


def test_every_connector_of_the_catalogue_is_killed() -> None:
    assert set(CASES) == {spec.connector for spec in CATALOG}


@pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases], ids=lambda case: case.__name__)
def test_a_killed_listing_goes_on_and_reads_nothing_again(
    case: Callable[[Path], AbstractContextManager[Source]], tmp_path: Path
) -> None:
    with case(tmp_path) as source:
        expected = listed(source.job, tmp_path / "undisturbed")
        runs = [_run(source, tmp_path, kill_at) for kill_at in (*source.kills, 0)]
    assert [len(names) for names in runs[:-1]] == list(source.kills) and runs[-1]
    assert pl.read_ipc(tmp_path / "listed").equals(expected) and expected.height
    reads = Counter(name for names in runs for name in names)
    assert len(reads) == source.objects(expected)
    assert reads - Counter(names[-1] for names in runs[:-1]) == Counter(set(reads))


def _run(source: Source, tmp_path: Path, kill_at: int) -> list[str]:
    """The objects that a run read or was killed at, in order."""
    opened, requests = tmp_path / "opened", source.requests
    opened.write_text("")
    if requests is not None:
        requests.clear()
        requests.kill_at = kill_at
    process = started(source.job, tmp_path / "home", opened, kill_at, tmp_path / "listed")
    if requests is not None:
        requests.started.put(process)
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if kill_at else 0)
    return requests.names() if requests is not None else opened.read_text().splitlines()
