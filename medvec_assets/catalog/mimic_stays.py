"""Hospital stays of MIMIC-IV, from its tables."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Residency, Space, Withdrawal

PHYSIONET_LICENSE = "PhysioNet Credentialed Health Data License 1.5.0"

MIMIC_STAYS = DatasetSpec(
    id="mimic_stays",
    source="mimic",
    title="MIMIC-IV hospital stays",
    citation="Johnson AEW, Bulgarelli L, Shen L, et al. MIMIC-IV, a freely accessible electronic health record dataset. "
    "Sci Data 2023;10:1. doi:10.1038/s41597-022-01899-x. Data: Johnson A, et al. MIMIC-IV (version 3.1). PhysioNet 2024. "
    "doi:10.13026/kpb9-mt58",
    description="One record per hospital admission: diagnoses, procedures, drugs, laboratory results and transfers of the "
    "modules hosp and icu as coded events; one vector of the codes, one of the code lists' own descriptions. No dates "
    "leave bronze. The sample is synthetic, in the release's layout, some of it broken on purpose.",
    homepage="https://physionet.org/content/mimiciv/",
    access="PhysioNet gives access to credentialed users who have completed CITI training and signed the project's data use "
    "agreement, each person singly; it is not shared. MEDVEC_SOURCES names https://physionet.org/files/mimiciv/3.1/ or a mirror.",
    raw_terabytes=10,
    connector="mimic_tables",
    modality="ehr",
    spaces={
        "codes": Space(encoder="bag_of_codes@1", expected_entities=546_028),
        "text": Space(encoder="minilm@1", expected_entities=546_028),
    },
    licenses=frozenset({PHYSIONET_LICENSE}),
    access_tier=AccessTier.REGISTERED,
    residency=Residency(where="holders", agreement="physionet-mimiciv-dua"),
    withdrawal=Withdrawal.ERASE,
    freshness=Freshness(max_age=timedelta(days=400), observe_cron="0 5 * * 1"),
    owners=("team:ehr",),
    index_attributes=("admission_type", "sex", "age_band", "events", "los_days"),
    # A seventh of the sample is broken, once for each way.
    quarantine_threshold=0.25,
    sample="synthetic",
)
