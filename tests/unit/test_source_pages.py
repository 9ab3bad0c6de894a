"""The pages about sources tell what the specs say, all of it and nothing old."""

from __future__ import annotations

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import Residency, Withdrawal
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.source_pages import FOLDER, pages


def test_the_pages_are_those_of_the_specs() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert written == pages(CATALOG), "run: python -m medvec_assets.source_pages"


def test_a_page_says_what_must_not_leave_and_what_becomes_of_withdrawals() -> None:
    kept = TCIA_CATALOG.model_copy(
        update={
            "residency": Residency(where="enclave:rap", agreement="dua-1"),
            "withdrawal": Withdrawal.ERASE,
            "smallest_count": 21,
            "sample": "synthetic",
        }
    )
    page = pages([kept])["tcia.md"]
    assert "| may a vector leave? | no: it stays in `rap` |" in page
    assert "| agreement | dua-1 |" in page
    assert "never taken in again; with the next refresh" in page
    assert "fewer than 21 persons" in page
    assert "made-up data" in page
