"""From what a caller wants to narrow by to conditions on entities: only attributes that a dataset lets be seen.

Belongs here: the allow list, and the form in which a condition is written in one line. Does not belong here: literals and
servers (resources.vector_index.filters), cohorts, which are partitions (targets).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query.search.question import SearchRequest
from resources.errors import IndexInvalid, QueryInvalid
from resources.vector_index.filters import CONTAINS, EQUALS, Condition, Value

MAX_CONDITIONS = 32
MAX_VALUES = 100
MAX_VALUE_CHARS = 255  # no attribute of a record is longer: its entity could not hold it
WRITTEN = "NAME=VALUE, NAME>=NUMBER, NAME<=NUMBER, NAME>NUMBER, NAME<NUMBER or NAME~VALUE (its list contains VALUE)"
_OPS = {"=": EQUALS, "~": CONTAINS}
_LINE = re.compile(r"([a-z][a-z0-9_]*)(>=|<=|=|>|<|~)(.+)", re.DOTALL)


def condition(field: str, op: str, values: Iterable[Value]) -> Condition:
    """One condition on an attribute. Raises QueryInvalid."""
    given = tuple(values)
    too_long = any(isinstance(value, str) and len(value) > MAX_VALUE_CHARS for value in given)
    if len(given) > MAX_VALUES or too_long:
        rule = f"a condition has more than {MAX_VALUES} values, or one of more than {MAX_VALUE_CHARS} characters"
        raise QueryInvalid(rule, remedy="ask for fewer or shorter values")
    try:
        return Condition(field, op, given)
    except IndexInvalid as error:
        raise QueryInvalid("a condition on an attribute cannot be asked", remedy=error.remedy) from None


def written(line: str) -> Condition:
    """A condition of one line, as WRITTEN says. A VALUE that is a number, true or false in JSON is that; one in double
    quotes is the text between them; any other is text. Raises QueryInvalid."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise QueryInvalid("a filter is not understood", remedy=f"write {WRITTEN}")
    name, op, text = found.groups()
    return condition(name, _OPS.get(op, op), [_value(text)])


def _value(text: str) -> Value:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, float) and not math.isfinite(value):
        return text
    return value if isinstance(value, str | int | float | bool) else text


def of_request(request: SearchRequest, specs: Iterable[DatasetSpec]) -> tuple[Condition, ...]:
    """What `request` narrows by, beside cohorts. QueryInvalid for an attribute that not all of `specs` let be seen."""
    if len(request.attributes) > MAX_CONDITIONS:
        raise QueryInvalid("there are too many conditions", remedy=f"give at most {MAX_CONDITIONS}")
    specs = list(specs)
    allowed = set.intersection(*(set(spec.index_attributes) for spec in specs))
    if any(one.field not in allowed for one in request.attributes):
        raise QueryInvalid(
            f"an attribute to narrow by is not one of {', '.join(sorted({spec.id for spec in specs}))}",
            remedy=f"use {', '.join(sorted(allowed)) or 'no attribute'}, or name one dataset, whose own there are more",
        )
    try:
        columns = {"modality": request.modalities, "license": request.licenses}
        own = [Condition(name, EQUALS, tuple(sorted(set(values)))) for name, values in columns.items() if values]
    except IndexInvalid as error:
        raise QueryInvalid("a modality or licence holds control characters", remedy=error.remedy) from None
    return (*own, *sorted(set(request.attributes), key=lambda one: one.expression))
