"""E-utilities: paging by the history server, what its failures mean, and that no key stands in a URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from standins.ncbi import KEY, RATE_LIMITED, Ncbi, World, serving

from medvec_assets.connectors import eutils
from medvec_assets.connectors.eutils import Eutils, parsed, place
from resources import http_source
from resources.errors import ConfigError, MedvecError, SourceError, SourceUnavailable
from resources.settings import Settings

STUDY = "SRP1[Accession]"


@pytest.fixture
def ncbi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ncbi]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(eutils, "REQUESTS_PER_SECOND", 1_000)
    monkeypatch.setattr(eutils, "WITH_KEY", 1_000)
    monkeypatch.setattr(eutils, "PAGE_IDS", 3)
    runs = [{"Run": f"SRR{number}", "SRAStudy": "SRP1", "BioProject": "PRJNA1"} for number in range(100_000, 100_007)]
    with serving(World(runs=runs)) as server:
        yield server


def service(ncbi: Ncbi, home: Path, credential: str = "") -> Eutils:
    credentials = json.loads(json.dumps({"ncbi": credential} if credential else {}))
    return Eutils(f"{ncbi.base}/entrez/eutils", Settings(home=home, credentials=credentials))


def pages(found: Eutils) -> list[str]:
    return list(found.records("sra", STUDY, "efetch", rettype="runinfo", retmode="text"))


def listed(found: list[str]) -> list[str]:
    return [line.split(",")[0] for page in found for line in page.splitlines() if line]


def test_records_come_a_page_at_a_time(ncbi: Ncbi, tmp_path: Path) -> None:
    found = pages(service(ncbi, tmp_path))
    assert len(found) == 3
    assert listed(found) == [row["Run"] for row in ncbi.world.runs]
    assert [one.form["retstart"] for one in ncbi.asked("efetch")] == ["0", "3", "6"]


def test_a_key_goes_into_the_form_and_never_into_a_url(ncbi: Ncbi, tmp_path: Path) -> None:
    pages(service(ncbi, tmp_path, f"jane@example.org:{KEY}"))
    assert all(
        (one.form["api_key"], one.form["email"], one.form["tool"]) == (KEY, "jane@example.org", "medvec")
        for one in ncbi.seen
    )
    assert all(one.query == "" and one.method == "POST" for one in ncbi.seen)


def test_a_key_allows_ten_requests_a_second_and_none_three(tmp_path: Path) -> None:
    for credential, email, interval in [
        ("", None, 1 / 3),
        (KEY, None, 0.1),
        ("a@b.org", "a@b.org", 1 / 3),
        (f"a@b.org:{KEY}", "a@b.org", 0.1),
    ]:
        made = Eutils(
            "https://127.0.0.1", Settings(home=tmp_path, credentials={"ncbi": credential} if credential else {})
        )
        assert made._identity.get("email") == email
        assert made._service._interval_seconds == pytest.approx(interval)


def test_too_many_requests_are_waited_for(ncbi: Ncbi, tmp_path: Path) -> None:
    ncbi.plan = [("esearch", RATE_LIMITED), ("efetch", RATE_LIMITED)]
    assert len(listed(pages(service(ncbi, tmp_path)))) == 7


def test_a_wrong_key_is_told_from_a_wrong_request(ncbi: Ncbi, tmp_path: Path) -> None:
    revoked = "f" * 36
    with pytest.raises(SourceError) as refusal:
        pages(service(ncbi, tmp_path, revoked))
    assert refusal.value.code == "credentials_refused" and revoked not in str(refusal.value)
    ncbi.plan = [("esearch", (400, {}, b"{}"))]
    with pytest.raises(SourceError) as refusal:
        pages(service(ncbi, tmp_path, KEY))
    assert refusal.value.code == "request_refused"


def test_a_forgotten_history_is_searched_anew_and_read_on(ncbi: Ncbi, tmp_path: Path) -> None:
    found = service(ncbi, tmp_path).records("sra", STUDY, "efetch", rettype="runinfo", retmode="text")
    first = next(found)
    ncbi.histories.clear()
    assert listed([first, *found]) == [row["Run"] for row in ncbi.world.runs]
    assert len(ncbi.asked("esearch")) == 2


def test_a_search_that_changes_between_two_pages_is_not_mixed(ncbi: Ncbi, tmp_path: Path) -> None:
    found = service(ncbi, tmp_path).records("sra", STUDY, "efetch", rettype="runinfo", retmode="text")
    next(found)
    ncbi.histories.clear()
    del ncbi.world.runs[0]
    with pytest.raises(SourceUnavailable, match="changed meanwhile"):
        list(found)


def test_a_history_that_is_always_forgotten_ends(ncbi: Ncbi, tmp_path: Path) -> None:
    gone = (200, {}, b"<eFetchResult><ERROR>Unable to obtain query #1</ERROR></eFetchResult>")
    ncbi.plan = [("efetch", gone)] * 10
    with pytest.raises(SourceUnavailable, match="forgot"):
        pages(service(ncbi, tmp_path))


def test_nothing_found_is_no_page(ncbi: Ncbi, tmp_path: Path) -> None:
    found = service(ncbi, tmp_path)
    assert list(found.records("sra", "SRP2[Accession]", "efetch", rettype="runinfo")) == []
    assert found.search("sra", "SRP2[Accession]").unknown == ("SRP2",)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html><body>Down for maintenance: jane@example.org</body></html>", SourceUnavailable),
        (b"<eSearchResult><ERROR>jane doe: invalid db</ERROR></eSearchResult>", SourceError),
        (b'{"error":"error forwarding request of jane"}', SourceError),
        (b"<eSearchResult><Count>many</Count></eSearchResult>", SourceError),
        (b"<other><Count>1</Count></other>", SourceError),
        (b"<eSearchResult><Count>1", SourceError),
    ],
)
def test_errors_with_status_200_are_errors(ncbi: Ncbi, tmp_path: Path, body: bytes, kind: type[MedvecError]) -> None:
    ncbi.plan = [("esearch", (200, {}, body))]
    with pytest.raises(kind) as refusal:
        service(ncbi, tmp_path).search("sra", STUDY)
    assert "jane" not in str(refusal.value)


def test_a_wrong_address_is_no_missing_object(ncbi: Ncbi, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no E-utilities"):
        Eutils(f"{ncbi.base}/elsewhere", Settings(home=tmp_path)).search("sra", STUDY)


def test_xml_expands_nothing_and_fetches_nothing() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>'
    for text in (bomb, outside):
        with pytest.raises(SourceError):
            parsed(text)


def test_a_source_names_what_is_wanted() -> None:
    found = place(
        "https://eutils.ncbi.nlm.nih.gov/entrez/eutils/?series=gse1,GSE22&series=GSE1&files=https://x.org",
        "series",
        "files",
    )
    assert (found.base_url, found.wanted, found.files) == (
        "https://eutils.ncbi.nlm.nih.gov/entrez/eutils",
        ("GSE1", "GSE22"),
        "https://x.org",
    )
    for uri in (
        "https://x.org?series=",
        "https://x.org",
        "https://x.org?series=a;b",
        "https://x.org?series=GSE1&api_key=1",
    ):
        with pytest.raises(ConfigError):
            place(uri, "series", "files")
    with pytest.raises(ConfigError, match="plain http"):
        place("http://x.org?series=GSE1", "series", "files")
