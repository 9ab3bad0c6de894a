"""Chest radiographs of Stanford AIMI (CheXpert) with their labels."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Residency, Space, Withdrawal

AIMI_CHEST_XRAY = DatasetSpec(
    id="aimi_chest_xray",
    source="aimi",
    title="Chest radiographs of Stanford AIMI (CheXpert)",
    citation="Irvin J, Rajpurkar P, et al. CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert "
    "Comparison. AAAI 2019;33:590-597. doi:10.1609/aaai.v33i01.3301590",
    description="One record per radiograph (224,316 of 65,240 patients) with view, projection, sex, age band and the 14 "
    "observations; one vector per image, of general weights that were never evaluated on radiographs. The sample bundle is "
    "drawn by a script and shows nobody.",
    homepage="https://aimi.stanford.edu/datasets/chexpert-chest-x-rays",
    access="Whoever registers and accepts the Stanford University Dataset Research Use Agreement is given a link to an Azure "
    'container: its address goes into MEDVEC_SOURCES, its signature into MEDVEC_CREDENTIALS as "aimi". No part may be passed on; '
    "the agreement that is signed says what else holds.",
    raw_terabytes=50,
    connector="aimi",
    modality="raster",
    spaces={"image": Space(encoder="lite0@1")},
    licenses=frozenset({"Stanford University Dataset Research Use Agreement"}),
    access_tier=AccessTier.REGISTERED,
    residency=Residency(where="holders", agreement="stanford-aimi-rua"),
    withdrawal=Withdrawal.ERASE,  # the strict reading: what Stanford does not list any more is not kept here either
    freshness=Freshness(max_age=timedelta(days=365), observe_cron="15 6 1 * *"),
    owners=("team:imaging",),
    index_attributes=("view", "projection", "sex", "age_band", "findings", "uncertain_findings"),
    has_studies=True,
    # The sample bundle: a third of its images are broken, or at odds with its tables, on purpose.
    quarantine_threshold=0.5,
    sample="synthetic",
)
