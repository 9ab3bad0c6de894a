"""Gene expression of tumours and normal tissue, by RNA-seq, of the Genomic Data Commons."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Space, Withdrawal

GDC_RNA_SEQ = DatasetSpec(
    id="gdc_rna_seq",
    source="gdc",
    title="GDC RNA-seq gene expression (STAR counts)",
    citation="Grossman RL, et al. Toward a shared vision for cancer genomic data. N Engl J Med 2016;375:1109-12. "
    "doi:10.1056/NEJMp1607591",
    description="One record per aliquot: the counts of GDC's harmonised STAR workflow as log2-CPM over a frozen gene list; one "
    "vector per aliquot. The sample bundle is synthetic, and star_pca@1, fitted on it, is a stand-in: fit it again on real "
    "counts before use (bench/fit_star_pca.py).",
    homepage="https://gdc.cancer.gov/",
    access="Open files need none, but NIH's Genomic Data Sharing policy binds their users too: identify nobody, and name the "
    "data in what is published. MEDVEC_SOURCES names https://api.gdc.cancer.gov, or a folder that gdc-client has filled. "
    "Controlled files are asked for at dbGaP, project by project; they never become vectors here.",
    raw_terabytes=100,
    connector="gdc",
    modality="expression",
    spaces={"rna_seq": Space(encoder="star_pca@1")},
    # Controlled files are listed with their dbGaP study as licence, and so refused before they are read.
    licenses=frozenset({"NCI GDC open access"}),
    access_tier=AccessTier.OPEN,
    # A redacted case, such as of a subject who withdrew consent, is not shown by GDC any more.
    withdrawal=Withdrawal.ARCHIVE,
    freshness=Freshness(max_age=timedelta(days=120), observe_cron="0 7 * * 1"),
    owners=("team:genomics",),
    index_attributes=("sample_type", "tissue_type", "primary_site", "disease_type", "strategy", "workflow"),
    # Files of the sample that are broken on purpose; GDC has no such project.
    known_bad={"synthetic_broken": 1.0},
    sample="synthetic",
)
