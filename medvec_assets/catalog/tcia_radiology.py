"""DICOM pixels of TCIA series, through any object store that holds them."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Space
from medvec_assets.catalog.tcia_catalog import CC

TCIA_RADIOLOGY = DatasetSpec(
    id="tcia_radiology",
    source="tcia",
    title="TCIA radiology series (DICOM pixels)",
    citation="Clark K, et al. The Cancer Imaging Archive (TCIA). J Digit Imaging 2013;26:1045-57. doi:10.1007/s10278-013-9622-7",
    description="One record per DICOM series with pixels, read from a folder, a bucket or IDC's bucket layout; one vector "
    "per series. The sample bundle is the real acquisitions in pydicom's packages, some of them broken on purpose.",
    homepage="https://www.cancerimagingarchive.net/",
    access="Open series need none: MEDVEC_SOURCES names a folder or bucket, or IDC's own `s3://idc-open-data`. Restricted "
    "collections are asked for at TCIA.",
    raw_terabytes=100,
    connector="dicom_objects",
    modality="imaging",
    spaces={"image": Space(encoder="lite0@1")},
    licenses=CC | {"MIT"},
    access_tier=AccessTier.OPEN,
    freshness=Freshness(max_age=timedelta(days=120), observe_cron="30 6 * * 1"),
    owners=("team:imaging",),
    index_attributes=("modality", "body_part", "rows", "columns", "instances", "photometric_interpretation"),
    has_studies=True,
    # The sample bundle is a parser's test collection: about a third of it is broken or pixel-less by design.
    quarantine_threshold=0.5,
)
