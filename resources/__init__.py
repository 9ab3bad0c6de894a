"""The ground floor: everything that touches a real system (files, Delta, Milvus, weights, keys).

Belongs here: one module per system, typed, without knowledge of datasets or of Dagster.
Does not belong here: what a dataset is, how a record is made, anything imported from `medvec_assets` or `api`.
"""
