"""The page in a real Chromium, over a real service with a part of the real catalogue and the real DICOM samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers.filling import fill
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_service import _fill, _real_index
from test_service_load import serving

from api.client import Client, Refused
from medvec_assets.catalog import dataset
from medvec_assets.stages.context import Context
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.vector_index import open_index
from tests.services import chromium

pytestmark = pytest.mark.integration

RADIOLOGY = dataset("tcia_radiology")
SLICE = Path(__file__).parents[1] / "datasets" / RADIOLOGY.id / "in" / "chest_ct" / "CT_small.dcm"
expect.set_options(timeout=120_000)  # the first question loads the encoder, the first image the reader of files


@dataclass
class Served:
    url: str
    key: str
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def opened(self, browser: Browser) -> Page:
        page = browser.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda one: self._note(one.url))
        page.goto(self.url)
        return page

    def _note(self, url: str) -> None:
        if not url.startswith((self.url, "blob:", "data:")):
            self.elsewhere.append(url)

    def entered(self, browser: Browser) -> Page:
        page = self.opened(browser)
        page.get_by_label("Key or token").fill(self.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Search")).to_be_visible()
        return page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, sources={"tcia_catalog": str(_real_index(home))})
    _fill(settings)
    with open_index(settings) as index:
        ctx = Context(settings, Lakehouse.open(settings), "run-of-the-test", index=index)
        fill(ctx, RADIOLOGY, "image")
    with serving(home) as (_, url, headers):
        yield Served(url, headers["X-API-Key"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def nothing_went_wrong(served: Served) -> Iterator[None]:
    """No script failed, nothing was blocked by the content policy, nothing was asked of anybody else."""
    served.errors.clear()
    yield
    assert served.errors == [] and served.elsewhere == []


def test_a_wrong_key_is_refused_in_words(served: Served, browser: Browser) -> None:
    page = served.opened(browser)
    page.get_by_label("Key or token").fill("wrong")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_contain_text("valid credential")
    expect(page.get_by_label("In words")).to_be_hidden()
    assert [one for one in served.errors if "401" not in one] == []
    served.errors.clear()  # the browser's own line of the refusal


def test_words_find_cards_and_the_keyboard_leads_to_their_chain(served: Served, browser: Browser) -> None:
    page = served.entered(browser)
    page.keyboard.type("contrast enhanced CT of the liver")  # the field has the focus
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("12 hits")
    card = page.get_by_role("article").first
    expect(card).to_contain_text("tcia_catalog")
    card.get_by_text("Provenance").click()
    expect(card).to_contain_text("minilm@1")
    card.get_by_role("button", name="Lineage").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Where it comes from")
    drawn = dialog.get_by_role("img")
    expect(drawn).to_have_attribute("alt", re.compile("was made by minilm@1 from record"))
    assert drawn.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="More hits").click()
    expect(page.get_by_role("status").first).to_contain_text("24 hits")
    page.get_by_role("button", name="More like this").first.click()
    expect(page.get_by_role("status").first).to_contain_text("like that one")


def test_an_image_finds_images_with_thumbnails(served: Served, browser: Browser) -> None:
    page = served.entered(browser)
    page.get_by_label("By an image").set_input_files(SLICE)
    expect(page.get_by_role("status").first).to_contain_text("hits like the image")
    assert SLICE.name not in page.content()
    shown = page.get_by_role("img", name=re.compile("Image of record")).first
    expect(shown).to_have_attribute("src", re.compile("^blob:"))
    assert shown.evaluate("image => image.naturalWidth") in (0, 224)


def test_the_map_is_walked_with_arrow_keys(served: Served, browser: Browser) -> None:
    page = served.entered(browser)
    page.get_by_role("link", name="Map").click()
    said = page.locator("#map-said")
    expect(said).to_contain_text("of the variance")
    expect(page.get_by_label("Colours").get_by_role("listitem").first).to_contain_text(": 150")
    page.get_by_label("Map of vectors").focus()
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("cohort")
    first = said.inner_text()
    page.keyboard.press("ArrowLeft")
    expect(said).not_to_have_text(first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("like that one")


def test_datasets_tell_how_fresh_and_how_many_and_every_field_has_a_name(served: Served, browser: Browser) -> None:
    page = served.entered(browser)
    page.get_by_role("link", name="Datasets").click()
    row = page.get_by_role("row").filter(has_text="tcia_catalog")
    expect(row).to_contain_text("300")
    expect(row).to_contain_text("minilm@1")
    unnamed = page.eval_on_selector_all(
        "input, select", "all => all.filter(one => !one.labels.length).map(one => one.id)"
    )
    assert unnamed == []
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("Key or token")).to_be_visible()


def test_the_client_asks_what_the_page_asks(served: Served) -> None:
    with Client(served.url, served.key, purpose="HRESCH") as medvec:
        hits = medvec.search("contrast enhanced CT of the liver", limit=3).hits
        assert len(hits) == 3 and medvec.lineage(hits[0].vector_id).record["record_id"] == hits[0].record_id
        [nearest, *_] = medvec.search_image(SLICE, limit=3).hits
        assert nearest.thumbnail is not None and medvec.thumbnail(nearest.thumbnail).startswith(b"\x89PNG")
        assert {"tcia_catalog", RADIOLOGY.id} <= {one.id for one in medvec.datasets().datasets}
        assert medvec.map("tcia_catalog", "text").points
    with Client(served.url, "wrong") as stranger, pytest.raises(Refused, match="401") as refused:
        stranger.datasets()
    assert refused.value.code == "unauthorized" and refused.value.remedy
