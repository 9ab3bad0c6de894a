"""T1 structural brain MRI of UK Biobank (field 20252)."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Residency, Space, Withdrawal

UKB_BRAIN_MRI = DatasetSpec(
    id="ukb_brain_mri",
    source="ukb",
    title="UK Biobank T1 structural brain MRI (field 20252)",
    citation="Miller KL, et al. Multimodal population brain imaging in the UK Biobank prospective epidemiological study. "
    "Nat Neurosci 2016;19:1523-36. doi:10.1038/nn.4393",
    description="One record per visit's T1 scan; one vector of its three middle slices, of general weights that were never "
    "evaluated on brains. The sample bundle is no person: it is the MNI152 template, an average of 152 heads, bent and "
    "re-lit by a script under invented eids.",
    homepage="https://biobank.ndph.ox.ac.uk/ukb/field.cgi?id=20252",
    access="Researchers of an approved application work inside UK Biobank's Research Analysis Platform. Individual data, and "
    "variables made of them, vectors too, may not leave it; exemptions are UK Biobank's to give.",
    raw_terabytes=50,
    connector="ukb_rap",
    modality="volume",
    spaces={"image": Space(encoder="lite0@1")},
    licenses=frozenset({"UK Biobank Material Transfer Agreement"}),
    access_tier=AccessTier.CONTROLLED,
    residency=Residency(where="enclave:rap", agreement="ukb-mta"),
    withdrawal=Withdrawal.ERASE,
    withdrawal_grace=timedelta(days=90),  # the Platform's own: after it, it removes dispensed files itself
    freshness=Freshness(max_age=timedelta(days=120), observe_cron="45 6 * * 1"),
    owners=("team:imaging",),
    index_attributes=("body_part", "orientation", "visit"),
    has_studies=True,
    # The sample bundle: more than a third of its files are broken on purpose.
    quarantine_threshold=0.6,
    sample="synthetic",
)
