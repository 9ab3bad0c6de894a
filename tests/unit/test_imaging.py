"""The imaging modality on real files and on broken ones made from them."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers.dicom_files import (
    deflated_bomb,
    edited,
    jpeg2000_bomb,
    jpeg_bomb,
    made,
    real,
    with_transfer_syntax,
)

from medvec_assets.connectors import open_connector
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.deid.technical import technical_attributes
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import RECORD_FRAME, Rejected, modality
from medvec_assets.modalities.imaging import image_input, pixels
from resources.errors import ObjectRejected, SourceUnavailable
from resources.settings import Settings

IMAGING = modality("imaging")
KEYS = Pseudonyms(b"k" * 32, "tcia")
RAMP = (np.arange(64 * 64, dtype=np.int16) % 1000).reshape(64, 64)


def manifest(files: Mapping[str, bytes], **columns: str) -> pl.DataFrame:
    """Manifest rows of these objects, all of one series."""
    rows = {"object_id": list(files), "uri": [f"mem:{name}" for name in files]}
    fixed = {"cohort": "c", "license": "MIT", "access_tier": "open", "subject_ref": "P1", "record_ref": "S1"} | columns
    return pl.DataFrame(rows).with_columns(pl.lit(value).alias(name) for name, value in fixed.items())


def records(files: Mapping[str, bytes], **columns: str) -> tuple[pl.DataFrame, dict[str, str]]:
    frame, rejected = IMAGING.records(manifest(files, **columns), lambda uri: files[uri.removeprefix("mem:")], KEYS)
    assert frame.schema == pl.Schema(RECORD_FRAME)
    codes = {item.object_id: item.code for item in rejected}
    assert sorted([*frame["object_ids"].explode().drop_nulls(), *codes]) == sorted(files)  # nothing lost, nothing twice
    return frame, codes


def refusal(data: bytes) -> ObjectRejected:
    with pytest.raises(ObjectRejected) as caught:
        image_input(data)
    return caught.value


# ---------------------------------------------------------------- the sample bundle


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame, list[Rejected], Any]:
    connector = open_connector("dicom_objects", Settings(home=tmp_path_factory.mktemp("home")), "tcia_radiology")
    objects = pl.concat([listing.objects for listing in connector.listings(pl.DataFrame())])

    def read(uri: str) -> bytes:
        return connector.read(uri, max_bytes=1 << 28)

    frame, rejected = IMAGING.records(objects, read, KEYS)
    return objects, frame, rejected, read


def test_the_sample_by_outcome(sample: Any) -> None:
    objects, frame, rejected, _ = sample
    assert frame.height == 39
    assert frame["object_ids"].list.len().sum() + len(rejected) == objects.height == 146
    assert Counter((item.disposition, item.code) for item in rejected) == {
        ("skipped", "not_an_image"): 17,
        ("quarantined", "not_dicom"): 5,
        ("quarantined", "no_pixels"): 4,
        ("quarantined", "truncated"): 2,
        ("quarantined", "decode_failed"): 1,
        ("quarantined", "dimensions_refused"): 1,
        ("quarantined", "header_invalid"): 1,
        ("quarantined", "missing_transfer_syntax"): 1,
    }
    assert frame["record_id"].is_unique().all()


def test_model_inputs_are_the_ones_whose_digests_the_records_hold(sample: Any) -> None:
    objects, frame, _, read = sample
    uris = dict(objects.select("object_id", "uri").iter_rows())
    some = frame.head(12).with_columns(
        object_uris=pl.Series([[uris[item] for item in ids] for ids in frame["object_ids"].head(12)])
    )
    inputs = IMAGING.model_inputs(some, "image", read)
    for array, digests in zip(inputs, some["content_digests"], strict=True):
        assert isinstance(array, np.ndarray) and (array.dtype, array.shape) == (np.uint8, (224, 224, 3))
        assert array_digest(array) == json.loads(digests)["image"]


def test_lossless_variants_of_one_image_share_one_digest() -> None:
    lossless = "", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless", "_padded"
    assert len({array_digest(image_input(real(f"MR_small{kind}.dcm"))) for kind in lossless}) == 1


# ---------------------------------------------------------------- what is refused

BAD = {
    "empty_object": lambda: b"",
    "not_dicom": lambda: b"%PDF-1.7" + bytes(1000),
    "truncated": lambda: real("CT_small.dcm")[:-5000],
    "no_pixels": lambda: edited(drop=("PixelData",)),
    "missing_transfer_syntax": lambda: real("meta_missing_tsyntax.dcm"),
    "unsupported_transfer_syntax": lambda: with_transfer_syntax(real("MR_small_RLE.dcm"), "1.2.840.10008.1.9"),
    "dimensions_refused": lambda: edited(Rows=65535, Columns=65535),
    "header_invalid": lambda: edited(drop=("Rows",)),
    "decode_failed": lambda: real("JPEG-lossy.dcm"),
    "constant_image": lambda: made(np.full((32, 32), 7, np.uint16)),
    "pixel_values_invalid": lambda: made(RAMP, RescaleSlope="1e39", RescaleIntercept="0"),
}


@pytest.mark.parametrize("code", BAD)
def test_each_bad_kind_has_its_code_and_spares_its_neighbours(code: str) -> None:
    files = {"bad": BAD[code](), "first": made(RAMP, InstanceNumber=1), "last": made(RAMP[::-1], InstanceNumber=2)}
    if code in ("decode_failed", "constant_image", "pixel_values_invalid"):
        # Found only when it is decoded, so it must be the middle one, and of the same modality.
        files["bad"] = edited_middle(files["bad"])
    frame, codes = records(files)
    assert codes == {"bad": code}
    assert frame.height == 1 and sorted(frame["object_ids"][0]) == ["first", "last"]
    alone, codes = records({"bad": BAD[code]()})
    assert alone.is_empty() and codes == {"bad": code}


def edited_middle(data: bytes) -> bytes:
    from helpers.dicom_files import written
    from pydicom import dcmread

    dataset = dcmread(BytesIO(data))
    dataset.InstanceNumber, dataset.Modality = 1, "CT"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    return written(dataset)


@pytest.mark.parametrize("name", ["rtplan.dcm", "rtdose.dcm", "liver_1frame.dcm", "test-SR.dcm", "waveform_ecg.dcm"])
def test_objects_that_are_no_images_are_skipped(name: str) -> None:
    error = refusal(real(name))
    assert (error.code, error.disposition) == ("not_an_image", "skipped")


@pytest.mark.parametrize("cut", [0, 1, 100, 131, 132, 140, 300, 1000, 3000, 5000, 9000])
@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_jp2klossless.dcm", "image_dfl.dcm", "UN_sequence.dcm"])
def test_a_file_cut_anywhere_is_refused_and_nothing_else_is_raised(name: str, cut: int) -> None:
    data = real(name)
    if cut < len(data):
        assert refusal(data[:cut]).disposition == "quarantined"


def test_random_damage_never_escapes() -> None:
    generator = np.random.default_rng(5)
    for name in ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_small_odd_jpeg.dcm"):
        for _ in range(60):
            data = bytearray(real(name))
            for at in generator.integers(132, len(data), 12):
                data[at] = generator.integers(256)
            with suppress(ObjectRejected):  # the other allowed outcome
                assert image_input(bytes(data)).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: edited(Rows=16384, Columns=16384),  # 1 GiB as float32, though each side is allowed
        lambda: made(RAMP, NumberOfFrames=2_000_000_000),
        lambda: jpeg2000_bomb(60_000),
        lambda: jpeg_bomb(60_000),
    ],
)
def test_absurd_dimensions_are_refused_before_decoding(bomb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_decoded", lambda *_: pytest.fail("it was decoded"))
    data = bomb()
    assert refusal(data).code == "dimensions_refused"


def test_a_deflated_bomb_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from medvec_assets.modalities.imaging import dicom_file

    monkeypatch.setattr(dicom_file, "MAX_INFLATED_BYTES", 1 << 20)
    bomb = deflated_bomb(megabytes=100)
    refusal(bomb)  # imports are not counted
    tracemalloc.start()
    try:
        assert refusal(bomb).code == "dimensions_refused"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_running_out_of_memory_or_source_is_no_fault_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> Any:
        def read(_: str) -> bytes:
            raise error

        return read

    for error in (MemoryError(), SourceUnavailable("down", remedy="wait")):
        with pytest.raises(type(error)):
            IMAGING.records(manifest({"a": b""}), fails(error), KEYS)


# ---------------------------------------------------------------- series


def test_the_middle_instance_stands_first_whatever_the_order_of_the_files() -> None:
    numbers = enumerate((5, 1, 4, 2, 3))
    images = {f"o{i}": made(RAMP + i, InstanceNumber=n, SOPInstanceUID=f"1.2.{i}") for i, n in numbers}
    frame, _ = records(images)
    row = frame.row(0, named=True)
    assert row["object_ids"] == ["o4", "o1", "o3", "o2", "o0"]  # the middle one, then the others in order
    assert json.loads(row["attributes"])["instances"] == 5
    assert json.loads(row["content_digests"])["image"] == array_digest(image_input(images["o4"]))
    again, _ = records(dict(reversed(images.items())))
    assert again.equals(frame)


def test_instances_without_numbers_are_ordered_by_position_then_uid() -> None:
    axial = [1, 0, 0, 0, 1, 0]
    files = {
        name: made(RAMP + z, ImageOrientationPatient=axial, ImagePositionPatient=[0, 0, z], SOPInstanceUID=f"1.{uid}")
        for name, z, uid in (("a", 30, 1), ("b", 10, 2), ("c", 20, 4), ("d", 20, 3))
    }
    assert records(files)[0]["object_ids"][0].to_list() == ["c", "b", "d", "a"]


def test_instances_that_contradict_their_series_are_rejected() -> None:
    files = {"a": made(RAMP), "b": made(RAMP + 1), "c": made(RAMP + 2, Modality="MR")}
    frame, codes = records(files)
    assert codes == {"c": "inconsistent_series"} and sorted(frame["object_ids"][0]) == ["a", "b"]
    mixed = manifest(files).with_columns(subject_ref=pl.Series(["P1", "P2", "P1"]))
    frame, rejected = IMAGING.records(mixed, lambda uri: files[uri[4:]], KEYS)
    assert {item.object_id for item in rejected} == {"b", "c"}
    assert frame["subject_key"].to_list() == [KEYS.subject("P1")]


def test_series_are_separate_records_and_a_bad_one_takes_no_other() -> None:
    files = {"a": made(RAMP), "b": b"", "c": made(RAMP)}
    objects = manifest(files).with_columns(record_ref=pl.Series(["S1", "S2", "S3"]))
    frame, rejected = IMAGING.records(objects, lambda uri: files[uri[4:]], KEYS)
    assert frame.height == 2 and frame["record_id"].n_unique() == 2 and [item.object_id for item in rejected] == ["b"]
    assert frame["content_digests"].n_unique() == 1


def test_a_large_series_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from medvec_assets.modalities.imaging import series

    monkeypatch.setattr(series, "HELD_BYTES", 0)
    files = {f"o{i}": made(RAMP + i, InstanceNumber=i) for i in range(3)}
    frame, _ = records(files)
    monkeypatch.undo()
    assert frame.equals(records(files)[0])


def test_a_changed_payload_is_refused() -> None:
    files = {"a": made(RAMP)}
    frame, _ = records(files)
    frame = frame.with_columns(object_uris=pl.Series([["mem:a"]]))
    for data, code in ((made(RAMP.T.copy()), "payload_changed"), (b"", "empty_object")):
        (outcome,) = IMAGING.model_inputs(frame, "image", lambda uri, data=data: data)
        assert isinstance(outcome, Rejected)
        assert (outcome.object_id, outcome.code) == (frame["record_id"][0], code)


# ---------------------------------------------------------------- what leaves bronze


def test_no_planted_identifier_leaves_bronze(tmp_path: Path, caplog: Any, capfd: Any, recwarn: Any) -> None:
    names = "PatientName PatientID StudyDescription SeriesDescription InstitutionName Manufacturer StationName"
    codes = "ManufacturerModelName OperatorsName AccessionNumber ProtocolName ImageComments BodyPartExamined Modality"
    planted = {keyword: f"PLANTED{n}" for n, keyword in enumerate((names + " " + codes).split())}
    planted |= {"StudyInstanceUID": "1.99.1", "SeriesInstanceUID": "1.99.2", "SOPInstanceUID": "1.99.3"}
    planted["StudyDate"] = "19990909"
    files = {"obj-1": edited(**planted)}
    objects = manifest(files, subject_ref="PLANTED1", record_ref="1.99.2").with_columns(
        uri=pl.lit("file:///data/DOE_JANE.dcm")
    )
    frame, rejected = IMAGING.records(objects, lambda _: files["obj-1"], KEYS)
    assert frame.height == 1 and not rejected
    frame.write_parquet(tmp_path / "records.parquet", compression="uncompressed")
    frame.write_ipc(tmp_path / "records.ipc", compression="uncompressed")
    for path in tmp_path.iterdir():
        held = path.read_bytes()
        assert b"MONOCHROME2" in held  # the search would find something
        for secret in (b"PLANTED", b"DOE_JANE", b"1.99.", b"19990909"):
            assert secret not in held, secret
    assert json.loads(frame["deid_actions"][0])["attributes_dropped"] > 50
    # Nor by another way: pydicom warns about values, and quotes them.
    IMAGING.records(manifest({"a": b""}), lambda _: edited(PatientName="PLANTED"), KEYS)
    damaged = real("badVR.dcm").replace(b"id11111", b"PLANTED")
    assert "PLANTED" not in str(refusal(damaged))
    streams = capfd.readouterr()
    assert "PLANTED" not in caplog.text + streams.out + streams.err + "".join(str(item.message) for item in recwarn)


def test_what_is_not_open_is_made_of_the_copy_that_is_landed() -> None:
    files = {f"o{number}": edited(PatientName="PLANTED", InstanceNumber=number) for number in range(3)}
    landed: list[bytes] = []

    def land(data: bytes) -> str:
        landed.append(data)
        return "payload"

    objects = manifest(files, access_tier="controlled")
    frame, rejected = IMAGING.records(objects, lambda uri: files[uri.removeprefix("mem:")], KEYS, land)
    assert not rejected and frame["payload_uri"].to_list() == ["payload"]
    (copy,) = landed
    assert b"PLANTED" in files["o1"] and b"PLANTED" not in copy
    inputs = IMAGING.model_inputs(frame.with_columns(object_uris=pl.Series([["payload"]])), "image", lambda _: copy)
    assert array_digest(inputs[0]) == json.loads(frame["content_digests"][0])["image"]
    opened, _ = IMAGING.records(manifest(files), lambda uri: files[uri.removeprefix("mem:")], KEYS, land)
    assert len(landed) == 1 and opened["payload_uri"].to_list() == ["object:o1"]


def test_errors_name_rule_and_remedy_and_no_content() -> None:
    error = refusal(edited(Rows=0, PatientName="PLANTED"))
    assert error.code == "dimensions_refused" and error.remedy and "PLANTED" not in repr(error.__cause__) + str(error)
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ({"Modality": "CT", "BodyPartExamined": "chest "}, {"modality": "CT", "body_part": "CHEST"}),
        ({"BodyPartExamined": "WHOLE BODY"}, {"body_part": "WHOLEBODY"}),
        ({"Modality": "DOE", "BodyPartExamined": "JANE"}, {}),  # well-formed, and no term of the standard
        ({"Modality": ["CT", "MR"], "Rows": "512", "Columns": 10**7}, {}),
        ({"PixelSpacing": ["0.5", "0.25"], "SliceThickness": "5.000"}, {"pixel_spacing_mm": [0.5, 0.25]}),
        ({"PixelSpacing": ["0.5"], "SliceThickness": "1234567"}, {}),  # a hospital number in a thickness
        ({"PixelSpacing": "0.5", "SliceThickness": "nan", "PatientName": "DOE"}, {}),
    ],
)
def test_values_off_the_list_are_left_out(header: dict[str, Any], kept: dict[str, Any]) -> None:
    found = technical_attributes(header, transfer_syntax="1.2.840.10008.1.2", instances=1, frames=1)
    always = {"transfer_syntax", "instances", "frames", "slice_thickness_mm"}
    assert {name: value for name, value in found.items() if name not in always} == kept
    assert found.get("slice_thickness_mm") == (5.0 if header.get("SliceThickness") == "5.000" else None)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("s3://idc-open-data/0a1b2c3d-0000-1111-2222-333344445555/11111111-2222-3333-4444-555555555555.dcm", True),
        ("s3://clinic/DOE_JANE/11111111-2222-3333-4444-555555555555.dcm", False),
        ("file:///doe/0a1b2c3d-0000-1111-2222-333344445555/11111111-2222-3333-4444-555555555555.dcm", False),
    ],
)
def test_only_uris_that_are_all_surrogate_stand_in_a_record(uri: str, public: bool) -> None:
    frame, _ = IMAGING.records(manifest({"obj-1": b""}).with_columns(uri=pl.lit(uri)), lambda _: made(RAMP), KEYS)
    assert frame["payload_uri"][0] == (uri if public else "object:obj-1")
