"""Genotypes of the 1000 Genomes Project, phase 3, at a frozen panel of sites."""

from datetime import timedelta

from medvec_assets.catalog.spec import AccessTier, DatasetSpec, Freshness, Sharding, Space

KGP_GENOTYPES = DatasetSpec(
    id="kgp_genotypes",
    source="kgp",
    title="1000 Genomes genotypes (phase 3, GRCh37)",
    citation="The 1000 Genomes Project Consortium. A global reference for human genetic variation. Nature 2015;526:68-74. "
    "doi:10.1038/nature15393. Panel of sites: Kidd KK, et al. Progress toward an efficient panel of SNPs for ancestry "
    "inference. Forensic Sci Int Genet 2014;10:23-32. doi:10.1016/j.fsigen.2014.01.002",
    description="One record per sample and file; the vector is of the sample's dosages at 55 ancestry-informative SNPs, on "
    "the principal axes of the 2,504 samples of phase 3. It ranks by ancestry and supports no clinical statement. A file of "
    "one chromosome is a block of its own (`chr22`), one of several is `genome`: the block is the cohort and stands in the "
    "record's attributes. Vectors compare within a block only, so a query fixes the cohort; sites of other blocks are at the "
    "panel's mean and add nothing. The sample bundle is all 2,504 real samples in one file, and three made-up columns that "
    "are refused.",
    homepage="https://www.internationalgenome.org/data-portal/data-collection/phase-3",
    access="None is needed: MEDVEC_SOURCES names s3://1000genomes/release/20130502, read with AWS_SKIP_SIGNATURE=true, or a "
    "folder that mirrors it. Releases on GRCh38 are refused: their sites are others. Other collections of IGSR may have terms of "
    "their own.",
    raw_terabytes=200,
    connector="vcf_objects",
    modality="genotypes",
    spaces={"genotype": Space(encoder="kgp_pca@1")},
    licenses=frozenset({"IGSR open data"}),
    access_tier=AccessTier.OPEN,
    # An object is a kilobyte whatever its file weighs: shards are sized by rows alone.
    sharding=Sharding(max_objects=50_000, max_bytes=None),
    freshness=Freshness(max_age=timedelta(days=365), observe_cron="0 7 1 * *"),
    owners=("team:genomics",),
    index_attributes=("superpopulation", "population", "sex", "block", "call_rate", "sites"),
)
