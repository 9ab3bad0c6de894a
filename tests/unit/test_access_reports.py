"""What is made of the access log: FHIR AuditEvents, harvesting alerts, and the commands."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medvec_assets.access_audit import build_access_audit
from medvec_assets.cli import app
from medvec_assets.query.harvesting import last_look
from medvec_assets.runtime import Runtime
from resources import tables
from resources.access_log import Event, Keys, Writer
from resources.access_log.alerts import MIN_SUBJECTS, WALK_QUESTIONS, WINDOW, Alert, alerts
from resources.access_log.events import GENESIS, Line, decode, encode
from resources.access_log.fhir import BUNDLE_ENTRIES, audit_events, bundles
from resources.access_log.places import Place
from resources.lakehouse import Lakehouse
from resources.settings import Settings

KEYS = Keys(b"k" * 32)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ASKED = "ab" * 32


def line(**facts: Any) -> Line:
    given = {"at": NOON, "outcome": "answered", "status": 200, "request": ASKED, "correlation": "c0ffee" * 4}
    data, _ = encode(Event(**(given | facts)), "20260501T120000-00000000", 3, GENESIS, KEYS)
    return decode(data.rstrip(b"\n"), KEYS)


SEARCH = {
    "who": "ann",
    "key_id": "key-1",
    "roles": ("reader",),
    "purpose": "HRESCH",
    "client": "10.0.0.7",
    "method": "POST",
    "route": "/v1/search",
    "question": "cd" * 32,
    "versions": {"tcia_catalog/text": 3},
    "datasets": ("tcia_catalog",),
    "subjects": ("p1", "p2"),
    "results": 5,
}


def _entity(resource: dict[str, Any], code: str) -> dict[str, Any]:
    [found] = [one for one in resource["entity"] if one["type"]["code"] == code]
    return dict(found)


# -- FHIR


def test_a_search_is_one_patient_query_for_each_subject() -> None:
    both = audit_events(line(**SEARCH))
    assert [_entity(one, "1")["what"]["identifier"]["value"] for one in both] == ["p1", "p2"]
    assert [one["id"] for one in both] == ["20260501T120000-00000000-3.1", "20260501T120000-00000000-3.2"]
    assert both[0]["meta"]["tag"] == both[1]["meta"]["tag"]
    one = both[0]
    assert one["meta"]["profile"] == [
        "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PatientQuery"
    ]
    assert (one["type"]["code"], one["subtype"][0]["code"], one["action"], one["outcome"]) == (
        "rest",
        "search",
        "E",
        "0",
    )
    assert one["recorded"] == "2026-05-01T12:00:00.000000+00:00"
    query = _entity(one, "2")
    assert query["role"]["code"] == "24" and "what" not in query and "detail" not in query
    assert base64.b64decode(query["query"]).decode() == "hmac-sha256:" + "cd" * 32
    assert _entity(one, "XrequestId")["what"]["identifier"]["value"] == "c0ffee" * 4
    assert _entity(one, "dataset")["detail"] == [{"type": "delta_version", "valueString": "tcia_catalog/text@3"}]
    kinds = [agent["type"]["coding"][0]["code"] for agent in one["agent"]]
    assert kinds == ["110153", "110152", "IRCP"]
    assert [agent["requestor"] for agent in one["agent"]] == [False, False, True]
    user = one["agent"][2]
    assert (user["who"]["identifier"]["value"], user["purposeOfUse"][0]["coding"][0]["code"]) == ("ann", "HRESCH")


def test_a_lineage_read_is_a_read_whose_source_is_the_server() -> None:
    [one] = audit_events(line(**(SEARCH | {"route": "/v1/lineage/{vector_id}", "subjects": ("p1",)})))
    assert one["meta"]["profile"][0].endswith("IHE.BasicAudit.PatientRead")
    assert (one["subtype"][0]["code"], one["action"]) == ("read", "R")
    assert [agent["type"]["coding"][0]["code"] for agent in one["agent"]][:2] == ["110152", "110153"]
    assert _entity(one, "2")["role"]["code"] == "4"


def test_a_refusal_claims_no_profile_and_says_its_reason() -> None:
    [one] = audit_events(line(outcome="refused", status=401, reason="unauthorized", route="/v1/search"))
    assert "profile" not in one["meta"]
    assert (one["outcome"], one["outcomeDesc"]) == ("4", "unauthorized")
    assert sum(agent["requestor"] for agent in one["agent"]) == 1


@pytest.mark.parametrize(("events", "pages"), [(0, 0), (1, 1), (BUNDLE_ENTRIES, 1), (BUNDLE_ENTRIES + 1, 2)])
def test_bundles_are_paged_and_hold_no_events_of_the_writer(events: int, pages: int) -> None:
    found = list(bundles([line(kind="opened"), *[line(route="/v1/datasets")] * events]))
    assert len(found) == pages and sum(len(one["entry"]) for one in found) == events
    assert all(one["resourceType"] == "Bundle" and one["type"] == "collection" for one in found)


def _holes(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(_holes(one) for one in value.values())
    return value in ("", None) or (isinstance(value, list) and (not value or any(_holes(one) for one in value)))


@given(
    st.fixed_dictionaries(
        {"outcome": st.sampled_from(["answered", "refused", "failed"])},
        optional={name: st.just(value) for name, value in SEARCH.items() if name != "route"},
    ),
    st.sampled_from(["/v1/search", "/v1/lineage/{vector_id}", "unmatched"]),
)
def test_every_resource_is_one_of_fhir_without_an_empty_element(facts: dict[str, Any], route: str) -> None:
    """By the definitions of FHIR R4B, whose AuditEvent is R4's, in the package fhir.resources."""
    [bundle] = bundles([line(**facts, route=route)])
    assert not _holes(bundle)
    Bundle.model_validate_json(json.dumps(bundle))


# -- harvesting


def looks(who: str, each: Sequence[Sequence[str]], step: timedelta = timedelta(minutes=1)) -> list[Line]:
    """One question after the other, each with its subjects."""
    return [
        line(who=who, at=NOON + number * step, datasets=("d",), subjects=tuple(subjects), question=f"{number:064x}")
        for number, subjects in enumerate(each)
    ]


def told(lines: list[Line], everyone: int, since: datetime = NOON) -> list[Alert]:
    return alerts(lines, lambda _: frozenset(f"s{number}" for number in range(everyone)), 0.2, since)


def test_a_fifth_of_a_dataset_within_a_day_is_told_once_at_its_first_moment() -> None:
    walk = looks("eve", [[f"s{2 * number}", f"s{2 * number + 1}"] for number in range(100)])
    [alert] = told(walk, 500)
    assert (alert.who, alert.dataset, alert.rule) == ("eve", "d", "share")
    assert (alert.subjects, alert.share, alert.questions) == (100, 0.2, 50)
    assert (alert.since, alert.until) == (NOON, NOON + timedelta(minutes=49))


def test_the_same_over_many_days_by_many_callers_or_of_another_dataset_is_none() -> None:
    each = [[f"s{number}"] for number in range(100)]
    assert told(looks("eve", each, step=WINDOW / 50), 500) == []
    assert told([one for who in range(5) for one in looks(f"caller-{who}", each[who * 20 : who * 20 + 20])], 500) == []
    assert told(looks("eve", [[f"other-{number}"] for number in range(100)]), 500) == []
    assert told(looks("eve", each[: MIN_SUBJECTS - 1]), MIN_SUBJECTS) == []  # all of a small one is not many


def test_a_walk_through_a_large_dataset_is_told_and_work_on_one_question_is_not() -> None:
    step = timedelta(seconds=30)
    walk = looks("eve", [[f"s{number}"] for number in range(WALK_QUESTIONS)], step)
    work = looks("ann", [[f"s{number % 40}", "s0"] for number in range(WALK_QUESTIONS)], step)
    assert [(one.who, one.rule, one.questions) for one in told(walk + work, 100_000)] == [
        ("eve", "walk", WALK_QUESTIONS)
    ]
    assert told(walk[:-1], 100_000) == []


def test_only_windows_that_end_since_are_told() -> None:
    walk = looks("eve", [[f"s{number}"] for number in range(100)])
    [alert] = told(walk, 400, since=NOON + timedelta(minutes=90))
    assert alert.until == NOON + timedelta(minutes=90) and alert.subjects == 91
    assert told(walk, 400, since=NOON + timedelta(minutes=100)) == []


@given(st.lists(st.tuples(st.integers(0, 60), st.sets(st.integers(0, 120), min_size=1, max_size=20)), max_size=30))
def test_the_share_is_what_counting_each_window_anew_gives(steps: list[tuple[int, set[int]]]) -> None:
    at, lines = NOON, []
    for hours, subjects in steps:
        at += timedelta(hours=hours)
        lines.append(line(who="eve", at=at, datasets=("d",), subjects=tuple(f"s{one}" for one in sorted(subjects))))
    windows = [
        {subject for other in lines if one.at - WINDOW < other.at <= one.at for subject in other.facts["subjects"]}
        for one in lines
    ]
    expected = [len(seen) for seen in windows if len(seen) >= max(MIN_SUBJECTS, 0.2 * 121)][:1]
    assert [one.subjects for one in told(lines, 121)] == expected


# -- commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MEDVEC_HOME", str(tmp_path))
    settings = Settings()
    writer = Writer(Place.of(settings), Keys.of(settings))
    for number in range(60):
        subjects = (f"s{number}",)
        writer.submit(
            Event(outcome="answered", who="eve", **_asks(number), datasets=("d",), subjects=subjects)
        ).result()
    writer.close()
    return settings


def _asks(number: int) -> dict[str, Any]:
    return {"request": f"{number:064x}", "route": "/v1/search", "correlation": f"{number:032x}"}


def medvec(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["audit", *arguments])
    assert done.exit_code == code, done.output
    return [json.loads(one) for one in done.stdout.splitlines()]


def test_verify_exits_1_and_names_what_was_changed(home: Settings) -> None:
    [report] = medvec("verify", "--json")
    assert report["ok"] and report["events"] == 62 and report["faults"] == []
    assert medvec("seal", "--json")[0]["sealed"][0]["events"] == 62
    assert medvec("seal", "--json") == [{"sealed": []}]
    [report] = medvec("verify", "--json")
    assert (report["ok"], report["sealed_segments"], report["open_segments"]) == (True, 2, 0)
    place = Place.of(home)
    [writer] = place.writers()
    (place.folder / writer / "head").unlink()
    [report] = medvec("verify", "--json", code=1)
    assert [(one["writer"], one["rule"]) for one in report["faults"]] == [(writer, "head")]
    printed = CliRunner().invoke(app, ["audit", "verify"])
    assert f"FAIL  {writer} event 61" in printed.stdout and "does not stand" in printed.stdout


@pytest.mark.parametrize("is_sealed", [False, True])
def test_export_gives_events_of_a_span_as_lines_or_as_fhir(home: Settings, is_sealed: bool) -> None:
    if is_sealed:
        medvec("seal", "--json")
    rows = medvec("export")
    assert [row["sequence"] for row in rows] == list(range(62))
    assert rows[1]["who"] == "eve" and rows[1]["subjects"] == ["s0"] and len(rows[1]["hash"]) == 64
    [bundle] = medvec("export", "--format", "fhir")
    assert len(bundle["entry"]) == 60
    assert medvec("export", "--until", "2020-01-01") == []


def _publish(home: Settings, dataset: str, subjects: int) -> None:
    table = tables.records(dataset)
    empty = {field.name: [] if str(field.type).startswith("list") else "-" for field in table.schema}
    rows = [empty | {"subject_key": f"s{number}"} for number in range(subjects)]
    Lakehouse.open(home).append(table, pa.Table.from_pylist(rows, schema=table.schema), {})


def test_alerts_exit_1_and_tell_counts_and_no_subject(home: Settings) -> None:
    assert medvec("alerts", "--json") == [{"alerts": []}]  # there is no dataset d here
    _publish(home, "d", 100)
    [told] = medvec("alerts", "--json", code=1)
    assert [(one["who"], one["rule"], one["subjects"], one["share"]) for one in told["alerts"]] == [
        ("eve", "share", 50, 0.5)
    ]


def test_the_daily_job_fails_when_somebody_harvests_or_the_log_does_not_stand(home: Settings) -> None:
    job, runtime = build_access_audit(), Runtime(home)

    def failure() -> dg.Failure | None:
        try:
            job.execute_in_process(resources={"runtime": runtime})
        except dg.Failure as error:
            return error
        return None

    assert failure() is None
    assert Place.of(home).segments(Place.of(home).writers()[0]) == {}  # it sealed them
    _publish(home, "d", 100)
    harvested = failure()
    assert harvested is not None and "0 faults in the access log, 1 callers" in str(harvested.description)
    looks = Lakehouse.open(home).snapshot(tables.harvesting())
    assert looks is not None and [row["alerts"] for row in looks.read().to_dicts()].count(0) == 3  # of two looks
    look = last_look(looks)
    assert look is not None and look.alerts == {"share": 1, "walk": 0}
    (Place.of(home).folder / Place.of(home).writers()[0] / "head").unlink()
    broken = failure()
    assert broken is not None and "1 faults in the access log" in str(broken.description)
