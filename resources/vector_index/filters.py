"""Conditions on an entity's fields, and the filter that they are to a server: typed values, never text of a caller's.

Belongs here: what can be asked of a field, and its literals. Does not belong here: which attributes a dataset lets be
asked (query.search.filters), partitions and ids (types).

pymilvus' filter templates need Milvus 2.5, so literals are written here, in what Milvus 2.3.5 and Milvus Lite 3.2.2 read
alike: a string is in double quotes with only backslash and double quote escaped, and control characters are refused,
as one server takes their escapes and the other does not. Lite has no `in` for a JSON key, so several values are an `or`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from resources.errors import IndexInvalid

Value = str | int | float | bool
COLUMNS = ("modality", "license")  # fields of an entity that can be asked for; every other name is an attribute
EQUALS, CONTAINS, RANGES = "==", "contains", (">=", "<=", ">", "<")
MAX_INT = 2**63 - 1
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REMEDY = "use equals, a range of numbers, or contains for a list, with plain values"


@dataclass(frozen=True)
class Condition:
    """`field` (one of COLUMNS, or an attribute) is any of `values` (==), has any of them in its list (contains), or lies
    on that side of the only one. Raises IndexInvalid where that cannot be a filter. A field that is missing fits nothing."""

    field: str
    op: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        column = self.field in COLUMNS
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        fits = _ATTRIBUTE.fullmatch(self.field) and self.values and all(map(_is_plain, self.values))
        if self.op in RANGES:
            fits = fits and not column and numbers and len(self.values) == 1
        elif self.op == CONTAINS:
            fits = fits and not column
        else:
            fits = fits and self.op == EQUALS and (not column or all(isinstance(value, str) for value in self.values))
        if not fits:
            raise IndexInvalid("a condition on an entity's field is none that an index can be asked", remedy=_REMEDY)

    @property
    def expression(self) -> str:
        place = self.field if self.field in COLUMNS else f'attributes["{self.field}"]'
        literals = [_literal(value) for value in self.values]
        if self.op == CONTAINS:
            parts = [f"json_contains({place}, {one})" for one in literals]
        elif self.field in COLUMNS:
            return f"{place} in [{', '.join(literals)}]"
        else:
            parts = [f"{place} {self.op} {one}" for one in literals]
        return parts[0] if len(parts) == 1 else f"({' or '.join(parts)})"


def conditions_filter(conditions: Iterable[Condition]) -> str:
    """The filter for entities that fit all of `conditions`; empty, if there are none."""
    return " and ".join(one.expression for one in conditions)


def is_plain_text(value: str) -> bool:
    """Whether it can be written as a string literal: no control characters, no halves of a surrogate pair."""
    return not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in value)


def _is_plain(value: Value) -> bool:
    if isinstance(value, str):
        return is_plain_text(value)
    return isinstance(value, bool) or abs(value) <= MAX_INT  # neither NaN nor infinity is


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(value)  # true, 5, -0.25, 1e-07
