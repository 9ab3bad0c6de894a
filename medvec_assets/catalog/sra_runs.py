"""Public sequencing runs of NCBI's Sequence Read Archive, by what their reads share."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Space

SRA_RUNS = DatasetSpec(
    id="sra_runs",
    source="sra",
    title="SRA sequencing runs (k-mer sketches of reads)",
    citation="Katz K, et al. The Sequence Read Archive: a decade more of explosive growth. Nucleic Acids Res "
    "2022;50:D387-D390. doi:10.1093/nar/gkab1053",
    description="One record per run, of the first reads of its files; the vector is a sketch of their 21-mers, so that runs of "
    "the same organism, strain or contamination are near. Only runs whose consent is `public`: runs under a dbGaP consent are "
    "listed and refused. The sample bundle is synthetic: reads of three random genomes, some runs broken on purpose.",
    homepage="https://www.ncbi.nlm.nih.gov/sra",
    access="Public runs need none, and the databases' collaboration attaches no terms of use to them: MEDVEC_SOURCES names a "
    "folder, or E-utilities with the studies that are wanted. Runs under a dbGaP consent are asked for at dbGaP, and no vector "
    "is made of them.",
    raw_terabytes=80,
    connector="sra_runs",
    modality="sequencing",
    spaces={"kmer": Space(encoder="kmer_sketch@1")},
    licenses=frozenset({"NCBI SRA public"}),
    access_tier=AccessTier.OPEN,
    freshness=Freshness(max_age=timedelta(days=45), observe_cron="15 5 * * 1"),
    owners=("team:genomics",),
    index_attributes=("platform", "layout", "read_length", "reads_used", "gc_share"),
    # Of the sample's 37 objects 8 are broken by design, and one run has a dbGaP consent.
    quarantine_threshold=0.5,
    sample="synthetic",
)
