"""Discharge summaries and radiology reports of MIMIC-IV-Note."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Residency, Sharding, Space, Withdrawal

MIMIC_NOTES = DatasetSpec(
    id="mimic_notes",
    source="mimic",
    title="MIMIC-IV-Note: discharge summaries and radiology reports",
    citation="Johnson A, Pollard T, Horng S, Celi LA, Mark R. MIMIC-IV-Note: Deidentified free-text clinical notes "
    "(version 2.2). PhysioNet 2023. doi:10.13026/1n74-ne17",
    description="One record per note. The source has masked identifiers with ___ and shifted its dates; medvec's own rules go "
    "over the text once more (medvec_assets/deid/notes.py). One vector of each note's telling sections, 256 tokens. The "
    "sample is synthetic, in the release's layout, with identifiers planted in it and some of it broken on purpose.",
    homepage="https://physionet.org/content/mimic-iv-note/",
    access="PhysioNet gives access to credentialed users who have completed CITI training and signed the project's data use "
    "agreement, each person singly; it is not shared. MEDVEC_SOURCES names "
    "https://physionet.org/files/mimic-iv-note/2.2/ or a mirror.",
    raw_terabytes=0.006,
    connector="mimic_notes",
    modality="notes",
    # 331,794 discharge summaries and 2,321,355 radiology reports
    spaces={"text": Space(encoder="minilm@1", expected_entities=2_653_149)},
    licenses=frozenset({"PhysioNet Credentialed Health Data License 1.5.0"}),
    access_tier=AccessTier.REGISTERED,
    residency=Residency(where="holders", agreement="physionet-mimic-iv-note-dua"),
    withdrawal=Withdrawal.ERASE,
    sharding=Sharding(max_objects=100_000),
    freshness=Freshness(max_age=timedelta(days=400), observe_cron="30 5 * * 1"),
    owners=("team:ehr",),
    index_attributes=("note_type", "length", "sections"),
    # A sixth of the sample is broken, once for each way.
    quarantine_threshold=0.25,
    sample="synthetic",
)
