"""JSON columns of the lake (`attributes` and its kin), written by whole columns instead of row by row.

Belongs here: the one spelling of such a column (compact, keys sorted, no nulls), so that equal content is equal text.
Does not belong here: which keys a dataset may have (connectors, modalities).
"""

from __future__ import annotations

import json

import polars as pl


def json_objects(**fields: pl.Expr) -> pl.Expr:
    """One JSON object per row (String, never null): keys sorted, a null field left out, `{}` when all are null.

    Keys must be lower_snake_case. Nulls are cut out of the encoded text: inside an encoded string a quote always
    follows a backslash, so `key":null` can only be a key of ours.
    """
    keys = sorted(fields)
    null = f'"(?:{"|".join(keys)})":null'
    encoded = pl.struct(fields[key].alias(key) for key in keys).struct.json_encode()
    return encoded.str.replace_all(f",{null}", "").str.replace(rf"^\{{{null},?", "{")


def with_mark(objects: pl.Series, name: str) -> pl.Series:
    """`objects`, JSON objects, each with `name` set to true."""
    marked = [json.loads(text) | {name: True} for text in objects]
    lines = [json.dumps(one, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for one in marked]
    return pl.Series(objects.name, lines, pl.String)
