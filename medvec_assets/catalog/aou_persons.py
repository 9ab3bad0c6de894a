"""Persons of All of Us, from the tables of its curated data repository."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Residency, Space, Withdrawal

AOU_PERSONS = DatasetSpec(
    id="aou_persons",
    source="aou",
    title="All of Us persons (OMOP)",
    citation='The All of Us Research Program Investigators. The "All of Us" Research Program. N Engl J Med 2019;381:668-76. '
    "doi:10.1056/NEJMsr1809937",
    description="One record per participant of one curated data repository: visits, conditions, drugs and measurements of "
    "the OMOP tables as coded events; one vector of the codes, one of the concepts' names. The sample is synthetic, in "
    "OMOP's layout, some of it broken on purpose.",
    homepage="https://www.researchallofus.org/",
    access="Researchers of registered institutions, identified, trained and with the Data User Code of Conduct signed, work in "
    "the Researcher Workbench; participant-level data do not leave it. MEDVEC_SOURCES names `bigquery://<WORKSPACE_CDR>` or a "
    "folder of Parquet there.",
    raw_terabytes=50,
    connector="omop",
    modality="ehr",
    spaces={
        "codes": Space(encoder="bag_of_codes@1", expected_entities=400_000),
        "text": Space(encoder="minilm@1", expected_entities=400_000),
    },
    licenses=frozenset({"All of Us Data User Code of Conduct"}),
    access_tier=AccessTier.CONTROLLED,
    residency=Residency(where="enclave:workbench", agreement="aou-data-user-code-of-conduct"),
    # The strict reading: who is not in the next curated data repository is not kept in anything made of an earlier one.
    withdrawal=Withdrawal.ERASE,
    smallest_count=21,  # Data and Statistics Dissemination Policy: no count of 1 to 20 is published, nor can be derived
    freshness=Freshness(max_age=timedelta(days=400), observe_cron="0 6 * * 1"),
    owners=("team:ehr",),
    index_attributes=("sex", "age_band", "events"),
    # An eighth of the sample is broken, once for each way.
    quarantine_threshold=0.25,
    sample="synthetic",
)
