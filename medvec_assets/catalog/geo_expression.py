"""Gene expression by microarray, of the Gene Expression Omnibus."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Space

GEO_EXPRESSION = DatasetSpec(
    id="geo_expression",
    source="geo",
    title="GEO microarray gene expression (series matrices)",
    citation="Barrett T, et al. NCBI GEO: archive for functional genomics data sets: update. Nucleic Acids Res 2013;41:D991-5. "
    "doi:10.1093/nar/gks1193. Sample bundle: Golub TR, et al. Science 1999;286:531-7. doi:10.1126/science.286.5439.531",
    description="One record per sample of a series matrix: log2 intensities over a frozen list of probes; one vector per sample. "
    "A sample of another platform than Affymetrix HU6800 (GPL80) is refused: it wants a space of its own. The sample bundle "
    "is Golub's 38 ALL/AML bone marrow samples, real, under an accession that is not GEO's.",
    homepage="https://www.ncbi.nlm.nih.gov/geo/",
    access="None is needed: NCBI places no restrictions on the use of GEO's data, though submitters may claim rights in theirs. "
    "Personal-level data of GEO studies stand in dbGaP and are not read.",
    raw_terabytes=100,
    connector="geo_series",
    modality="expression",
    spaces={"expression": Space(encoder="golub_pca@1")},
    licenses=frozenset({"NCBI GEO public"}),
    access_tier=AccessTier.OPEN,
    freshness=Freshness(max_age=timedelta(days=60), observe_cron="30 7 * * 1"),
    owners=("team:genomics",),
    index_attributes=("platform", "organism", "molecule", "tissue", "cell_type", "disease_state", "class"),
    # A series of the sample that is broken on purpose; the accession is not GEO's.
    known_bad={"gse900000002": 1.0},
)
