"""The pipeline: what exists, where it comes from, how it becomes vectors.

First floor (no Dagster): `catalog`, `modalities`, `deid`, `connectors`, `fingerprints`, `partitions`, `stages`, `query`.
Second floor (Dagster wiring and the command line): `factory`, `checks`, `automation`, `definitions`, `cli`.
"""
