"""MIMIC-IV-Note's tables: notes across lines, rows that are none, releases that change, reads by id; then the modality."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from datasets import make_mimic_notes as sample
from pydantic import SecretStr
from standins import physionet as standin

from medvec_assets.catalog.mimic_notes import MIMIC_NOTES
from medvec_assets.connectors import LISTING, mimic_notes, physionet, sample_folder
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.notes import MAX_HEAD_CHARS, MODALITY, attributes, embedded_text
from medvec_assets.stages.manifest import validated
from resources import http_source
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings

KEY = "11" * 32
HEADER = ",".join(mimic_notes.COLUMNS)


def note(number: int, text: str = "EXAMINATION: CHEST. All is well.", subject: int = 10) -> str:
    quoted = text.replace('"', '""')
    return f'{subject}-RR-{number},{subject},,RR,{number},2150-01-01 00:00:00,2150-01-01 01:00:00,"{quoted}"'


def release(folder: Path, radiology: list[str], header: str = HEADER, discharge: list[str] | None = None) -> Path:
    tables = {"radiology": [header, *radiology], "discharge": [HEADER, *(discharge or [])]}
    found = folder / "physionet.org" / "files" / "mimic-iv-note" / "2.2"
    files = {
        f"note/{name}.csv.gz": gzip.compress("\n".join(lines).encode("utf-8", "surrogateescape"), mtime=0)
        for name, lines in tables.items()
    }
    standin.publish(found, files | {"LICENSE.txt": sample.LICENSE.encode()})
    return folder


def connector(tmp_path: Path, source: Path | str) -> mimic_notes.MimicNotes:
    credentials = {"physionet": SecretStr(standin.CREDENTIAL)}
    settings = Settings(
        home=tmp_path / "home", sources={"mimic_notes": str(source)}, credentials=credentials, pseudonym_key=KEY
    )
    return mimic_notes.open_connector(settings, "mimic_notes")


def listed(found: mimic_notes.MimicNotes, previous: pl.DataFrame | None = None) -> tuple[pl.DataFrame, list[Any]]:
    empty = pl.DataFrame(schema=LISTING)
    pieces = list(found.listings(empty if previous is None else previous))
    rejected = [refused for piece in pieces for refused in piece.rejected]
    return pl.concat([piece.objects for piece in pieces]), rejected


def test_a_note_is_listed_under_a_surrogate_and_read_by_its_id(tmp_path: Path) -> None:
    text = 'FINDINGS: clear,\n\n"very" clear\r\n'
    found = connector(tmp_path, release(tmp_path / "source", [note(2, text), note(3)]))
    objects, rejected = listed(found)
    assert rejected == [] and validated(next(iter(found.listings(objects))))[1] == []
    assert objects["subject_ref"].to_list() == ["10", "10"]
    assert not objects["object_id"].str.contains("10-RR").any()
    row = objects.row(0, named=True)
    data = found.read(row["uri"], max_bytes=10_000)
    assert json.loads(data)["text"] == text and len(data) == row["size_bytes"]
    assert pl.Series([data]).bin.size()[0] == row["size_bytes"]
    assert row["license"] == "PhysioNet Credentialed Health Data License 1.5.0"


def test_what_cannot_be_read_by_id(tmp_path: Path) -> None:
    found = connector(tmp_path, release(tmp_path / "source", [note(2)]))
    uri = listed(found)[0]["uri"][0]
    for wrong, code in ((uri.replace("RR-2", "RR-9"), "object_missing"), ("file:///etc/passwd", "object_missing")):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(wrong, max_bytes=10_000)
        assert refusal.value.code == code
    with pytest.raises(ObjectRejected, match="more than"):
        found.read(uri, max_bytes=10)


def test_a_row_that_is_no_note_leaves_its_neighbours(tmp_path: Path) -> None:
    swallowed = note(7, "begins\n" + note(8).replace('"', "") + "\nends")
    rows = [
        note(2),
        note(3) + ",more",
        note(4).replace("10-RR-4", "Harold Vance"),
        swallowed,
        note(5),
        note(6),
        note(9),
    ]
    objects, rejected = listed(connector(tmp_path, release(tmp_path / "source", rows)))
    assert objects.height == 4
    assert [(one.object_id, one.code) for one in rejected] == [
        ("radiology-row-2", "bad_row"),
        ("radiology-row-3", "bad_note_id"),
        ("radiology-row-4", "broken_quoting"),
    ]
    assert "Vance" not in str(rejected)


@pytest.mark.parametrize(
    ("header", "rows", "code"),
    [
        (HEADER.replace("text", "body"), [note(2)], "schema_drift"),
        (HEADER + ",text", [note(2)], "schema_drift"),
        (HEADER, ["a,b,c", "d,e,f", note(2)], "schema_drift"),
    ],
)
def test_a_table_that_is_another_is_refused_whole(tmp_path: Path, header: str, rows: list[str], code: str) -> None:
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path, release(tmp_path / "source", rows, header)))
    assert refusal.value.code == code


def test_a_file_that_ends_too_early_is_refused_whole(tmp_path: Path) -> None:
    source = release(tmp_path / "source", [note(number) for number in range(2, 40)])
    file = next(source.rglob("radiology.csv.gz"))
    file.write_bytes(file.read_bytes()[:-40])
    standin.seal(file.parents[1])
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path, source))
    assert refusal.value.code == "table_unreadable"


def test_a_note_keeps_the_release_that_changed_it(tmp_path: Path) -> None:
    source = release(tmp_path / "source", [note(2), note(3)])
    before, _ = listed(connector(tmp_path, source))
    folder = next(source.rglob("2.2"))
    folder.rename(folder.with_name("2.3"))
    changed = gzip.compress("\n".join([HEADER, note(2), note(3, "FINDINGS: a new one."), note(4)]).encode())
    (folder.with_name("2.3") / "note" / "radiology.csv.gz").write_bytes(changed)
    standin.seal(folder.with_name("2.3"))
    after, _ = listed(connector(tmp_path, source), before)
    versions = dict(after.select(pl.col("uri").str.tail(1), pl.col("upstream_version").str.tail(3)).rows())
    assert versions == {"2": "2.2", "3": "2.3", "4": "2.3"}
    assert after.sort("uri")["first_seen_version"].str.tail(3).to_list() == ["2.2", "2.2", "2.3"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[standin.PhysioNet]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(physionet, "REQUESTS_PER_SECOND", 10_000.0)
    with standin.serving(sample_folder("mimic_notes") / "physionet.org" / "files") as found:
        yield found


def test_the_folder_and_the_service_give_the_same_and_no_file_is_fetched_twice(
    tmp_path: Path, server: standin.PhysioNet
) -> None:
    here, there = (
        connector(tmp_path / "a", sample_folder("mimic_notes")),
        connector(tmp_path / "b", server.url("mimic-iv-note", "2.2")),
    )
    objects, rejected = listed(here)
    assert (objects.height, len(rejected)) == (46, 2)
    for _ in range(2):
        found, refused = listed(there)
        assert found.equals(objects) and refused == rejected
        there = connector(tmp_path / "b", server.url("mimic-iv-note", "2.2"))
    for uri in objects["uri"][:3]:
        assert there.read(uri, max_bytes=1 << 20) == here.read(uri, max_bytes=1 << 20)
    assert sorted(server.fetched()) == ["LICENSE.txt", "note/discharge.csv.gz", "note/radiology.csv.gz"]


def test_a_killed_pass_is_made_again_and_the_finished_table_is_not(
    tmp_path: Path, server: standin.PhysioNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, land = server.url("mimic-iv-note", "2.2"), mimic_notes._land

    def killed(folder: Path, path: str, file: Path) -> None:
        land(folder, path, file)
        if "radiology" in path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mimic_notes, "_land", killed)
        with pytest.raises(KeyboardInterrupt):
            listed(connector(tmp_path, url))
    landed: list[str] = []
    monkeypatch.setattr(
        mimic_notes, "_land", lambda folder, path, file: (landed.append(path), land(folder, path, file))
    )
    assert listed(connector(tmp_path, url))[0].height == 46
    assert landed == ["note/radiology.csv.gz"]
    assert server.fetched().count("note/radiology.csv.gz") == 1


# ---------------------------------------------------------------- the modality


def test_nothing_of_a_note_but_lists_stands_in_its_attributes(tmp_path: Path) -> None:
    text = "Harold Vance\nIMPRESSION: Harold Vance is well, as Mr. Vance said.\nFINDINGS: clear\n"
    source = release(tmp_path / "source", [note(2, text)])
    found = connector(tmp_path, source)
    frame, rejected = MODALITY.records(
        listed(found)[0], lambda uri: found.read(uri, max_bytes=1 << 20), Pseudonyms(b"k" * 32, "mimic")
    )
    assert rejected == []
    row = frame.row(0, named=True)
    assert json.loads(row["attributes"]) == {
        "length": "under_500",
        "note_type": "radiology",
        "sections": ["findings", "impression"],
    }
    assert set(json.loads(row["attributes"])) <= set(MIMIC_NOTES.index_attributes)
    assert "Vance" not in str(row) and "10-RR" not in str(row)
    assert json.loads(row["deid_actions"]) == {"name": 3}


def test_the_embedded_text_is_what_the_writer_told_in_the_telling_sections() -> None:
    discharge = (
        "Name: ___\nAllergies:\nPenicillin\nChief Complaint:\nchest pain\nHistory of Present Illness:\n[NAME] is a [AGE] yo M "
        + "with much to tell. " * 200
        + "\nPertinent Results:\nWBC 9\nDischarge Diagnosis:\nNSTEMI\nDischarge Condition: good"
    )
    head = embedded_text(discharge)
    assert head.startswith(
        "chief complaint: chest pain discharge diagnosis: NSTEMI history of present illness: is a yo M with much"
    )
    assert len(head) <= MAX_HEAD_CHARS and "Penicillin" not in head and "WBC" not in head
    assert "[" not in head and "___" not in head
    assert attributes("discharge", discharge)["sections"] == [
        "chief_complaint",
        "discharge_diagnosis",
        "history_of_present_illness",
    ]


def test_a_note_without_sections_is_read_from_its_beginning() -> None:
    text = "The patient was seen today. " * 100
    assert embedded_text(text) == embedded_text(text[:1_200]) and embedded_text("") == ""


def test_the_model_input_is_the_embedded_text_of_the_record(tmp_path: Path) -> None:
    records = pl.DataFrame({"text": ["IMPRESSION: No fracture seen.", "a b c"]})
    assert MODALITY.model_inputs(records, "text", lambda uri: b"") == ["impression: No fracture seen.", "a b c"]


def test_no_planted_identifier_stands_in_the_samples_records() -> None:
    """`expected/` is what test_datasets finds; here it is searched for every telling word of what was planted."""
    folder = sample_folder("mimic_notes").parent
    text = (folder / "expected" / "records.json").read_text() + (folder / "expected" / "quarantine.json").read_text()
    places = {"Hospital", "Nursing", "Home", "Medical", "Center", "Street", "Apt", "Box"}  # kinds, not names
    names = ("patient", "doctor", "relative", "town", "hospital", "address")
    planted = {
        word for kind in names for one in sample.IDENTIFIERS[kind] for word in re.findall(r"[A-Z][a-z]{2,}", one)
    }
    planted |= {
        found for many in sample.IDENTIFIERS.values() for one in many for found in re.findall(r"\d[\d-]{3,}\d", one)
    }
    assert len(planted) > 60
    assert [word for word in sorted(planted - places) if re.search(rf"\b{re.escape(word)}\b", text)] == []
