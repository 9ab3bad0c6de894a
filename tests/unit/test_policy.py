"""Policy: what no rule allows is refused, and the rule is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from medvec_assets.catalog.spec import Residency
from resources.policy import residency_refusal
from resources.settings import Settings


def refusal(
    where: str, agreement: str | None = None, site: str = "anywhere", on_file: tuple[str, ...] = ()
) -> str | None:
    settings = Settings(home=Path("unused"), site=site, agreements=frozenset(on_file))
    found = residency_refusal(settings, where, agreement, "dataset d")
    return str(found) if found is not None else None


@pytest.mark.parametrize(
    ("where", "agreement", "site", "on_file"),
    [
        ("anywhere", None, "anywhere", ()),
        ("anywhere", None, "rap", ()),
        ("anywhere", "dua-7", "anywhere", ("dua-7",)),
        ("holders", "dua-7", "anywhere", ("dua-7", "other")),
        ("enclave:rap", None, "rap", ()),
        ("enclave:rap", "dua-7", "rap", ("dua-7",)),
    ],
)
def test_what_a_rule_allows_is_allowed(where: str, agreement: str | None, site: str, on_file: tuple[str, ...]) -> None:
    assert refusal(where, agreement, site, on_file) is None


@pytest.mark.parametrize(
    ("where", "agreement", "site", "on_file", "rule"),
    [
        ("anywhere", "dua-7", "anywhere", (), "agreement"),
        ("holders", "dua-7", "anywhere", (), "agreement"),
        ("holders", "dua-7", "anywhere", ("dua-77",), "agreement"),
        ("holders", None, "anywhere", (), "residency"),
        ("enclave:rap", None, "anywhere", (), "residency"),
        ("enclave:rap", None, "rap2", (), "residency"),
        ("enclave:rap", None, "enclave:rap", (), "residency"),
        ("enclave:rap", "dua-7", "rap", (), "agreement"),
        ("enclave:rap", "dua-7", "elsewhere", ("dua-7",), "residency"),
        ("", None, "anywhere", (), "residency"),
        ("a rule nobody wrote yet", None, "anywhere", (), "residency"),
    ],
)
def test_everything_else_is_refused_with_the_rule_named(
    where: str, agreement: str | None, site: str, on_file: tuple[str, ...], rule: str
) -> None:
    said = refusal(where, agreement, site, on_file)
    assert said is not None
    assert "dataset d" in said
    assert f"rule '{rule}'" in said
    assert "What to do:" in said


@pytest.mark.parametrize("where", ["", "Anywhere", "enclave:", "enclave:a b", "nowhere", "holders"])
def test_a_spec_cannot_name_a_rule_that_does_not_exist(where: str) -> None:
    with pytest.raises(ValidationError):
        Residency(where=where)
