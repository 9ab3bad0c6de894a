"""Policy: what no rule allows is refused, and the rule is named."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medvec_assets.catalog.spec import Residency
from resources.policy import Terms, agreement_of, refusal
from resources.settings import Agreement, Settings

TODAY = date(2026, 5, 1)
DUA = {"id": "dua-7", "holder": "Example University", "datasets": ["d"], "expires": "2026-05-01"}


def settings(site: str = "anywhere", *on_file: dict[str, Any], **others: Any) -> Settings:
    return Settings(
        home=Path("unused"), site=site, agreements=[Agreement.model_validate(one) for one in on_file], **others
    )


def refused(where: str, agreement: str | None, given: Settings) -> str | None:
    found = refusal(given, Terms("d", where, agreement), TODAY)
    if found is None:
        return None
    assert "dataset d" in found.message and f"rule '{found.rule}'" in found.message and found.remedy
    return found.rule


@pytest.mark.parametrize(
    ("where", "agreement", "given"),
    [
        ("anywhere", None, settings()),
        ("anywhere", None, settings("rap")),
        ("anywhere", "dua-7", settings("anywhere", DUA)),
        ("holders", "dua-7", settings("anywhere", DUA, DUA | {"id": "other"})),
        ("holders", "dua-7", settings("anywhere", DUA | {"expires": "2020-01-01"}, DUA)),  # the renewed one counts
        ("enclave:rap", None, settings("rap")),
        ("enclave:rap", "dua-7", settings("rap", DUA)),
        ("enclave:rap", None, settings("rap", index_uri="http://127.0.0.1:19530", lake_uri="file:///lake")),
        ("enclave:rap", None, settings("rap", index_uri="https://milvus.rap:19530", site_hosts={"milvus.rap"})),
        ("enclave:rap", None, settings("rap", lake_uri="s3://inside/lake", site_hosts={"inside"})),
        # Open data may be sent anywhere.
        ("anywhere", None, settings(index_uri="https://milvus.elsewhere:19530")),
    ],
)
def test_what_a_rule_allows_is_allowed(where: str, agreement: str | None, given: Settings) -> None:
    assert refused(where, agreement, given) is None


@pytest.mark.parametrize(
    ("where", "agreement", "given", "rule"),
    [
        ("anywhere", "dua-7", settings(), "agreement"),
        ("holders", "dua-7", settings("anywhere", DUA | {"id": "dua-77"}), "agreement"),
        ("holders", "dua-7", settings("anywhere", DUA | {"datasets": ["other"]}), "scope"),
        ("holders", "dua-7", settings("anywhere", DUA | {"expires": "2026-04-30"}), "expiry"),
        ("holders", None, settings(), "residency"),
        ("enclave:rap", None, settings(), "residency"),
        ("enclave:rap", None, settings("rap2"), "residency"),
        ("enclave:rap", None, settings("enclave:rap"), "residency"),
        ("enclave:rap", "dua-7", settings("rap"), "agreement"),
        ("enclave:rap", "dua-7", settings("elsewhere", DUA), "residency"),
        ("enclave:rap", None, settings("rap", index_uri="https://milvus.elsewhere:19530"), "egress"),
        ("enclave:rap", None, settings("rap", lake_uri="s3://outside/lake"), "egress"),
        ("enclave:rap", None, settings("rap", lake_uri="s3://outside/lake", site_hosts={"inside"}), "egress"),
        ("", None, settings(), "residency"),
        ("a rule nobody wrote yet", None, settings(), "residency"),
    ],
)
def test_everything_else_is_refused_with_the_rule_named(
    where: str, agreement: str | None, given: Settings, rule: str
) -> None:
    assert refused(where, agreement, given) == rule


def test_an_agreement_is_found_with_its_holder_and_end() -> None:
    found = agreement_of(settings("anywhere", DUA), Terms("d", "holders", "dua-7"))
    assert found is not None and (found.holder, found.expires) == ("Example University", TODAY)
    assert agreement_of(settings("anywhere", DUA), Terms("other", "holders", "dua-7")) is None


@pytest.mark.parametrize("where", ["", "Anywhere", "enclave:", "enclave:a b", "nowhere", "holders"])
def test_a_spec_cannot_name_a_rule_that_does_not_exist(where: str) -> None:
    with pytest.raises(ValidationError):
        Residency(where=where)
