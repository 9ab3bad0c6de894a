"""Every series of Imaging Data Commons, by its descriptor."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Sharding, Space

CC = frozenset({"CC BY 3.0", "CC BY 4.0", "CC BY-NC 3.0", "CC BY-NC 4.0"})

TCIA_CATALOG = DatasetSpec(
    id="tcia_catalog",
    source="tcia",
    title="TCIA series catalogue (Imaging Data Commons)",
    citation="Fedorov A, et al. National Cancer Institute Imaging Data Commons. RadioGraphics 2023. doi:10.1148/rg.230180",
    description="One record per DICOM series of the Imaging Data Commons index; the vector is of the series' descriptor "
    "(modality, body part, series and study description, collection).",
    homepage="https://portal.imaging.datacommons.cancer.gov/",
    access="None is needed: the index is published with every release, as the package idc-index-data.",
    raw_terabytes=100,
    connector="idc_index",
    modality="series_descriptor",
    spaces={"text": Space(encoder="minilm@1")},
    licenses=CC | {"National Library of Medicine Terms and Conditions; May 21, 2019"},
    access_tier=AccessTier.OPEN,
    # A descriptor is a few hundred bytes whatever its series weighs: shards are sized by rows alone.
    sharding=Sharding(max_objects=50_000, max_bytes=None),
    freshness=Freshness(max_age=timedelta(days=120), observe_cron="0 6 * * 1"),
    owners=("team:imaging",),
    index_attributes=("modality", "body_part", "series_description", "study_description", "manufacturer", "instances"),
    # 720 of its 4,433 series have a NUL where their description should say the increment of slices.
    # No other series of the 1,044,191 is in quarantine.
    known_bad={"phantom_fda": 0.17},
    # 14 collections, all of them CC BY: 35,561 series with 9,244 distinct descriptors, organs and modalities mixed.
    sample_cohorts=(
        "acrin_nsclc_fdg_pet",
        "breast_mri_nact_pilot",
        "cmb_crc",
        "cmb_lca",
        "cptac_pda",
        "ct_colonography",
        "hcc_tace_seg",
        "lctsc",
        "prostate_diagnosis",
        "qin_sarcoma",
        "tcga_lihc",
        "tcga_ov",
        "upenn_gbm",
        "vestibular_schwannoma_seg",
    ),
)
