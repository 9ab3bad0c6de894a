"""From a frame to the model input: rescale, window, colour, orientation, aspect."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from helpers.dicom_files import made, real
from PIL import Image

from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities.imaging import image_input, pixels, thumbnail
from medvec_assets.modalities.imaging.dicom_file import read_dataset
from medvec_assets.modalities.imaging.image_rules import check_image

RAMP = (np.arange(64 * 64) % 1000).astype(np.int16).reshape(64, 64)


def middle_row(data: bytes) -> list[int]:
    """Grey values along the middle row of a model input, one per 16 pixels."""
    array = image_input(data)
    assert (array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all()
    return [int(value) for value in np.rint(array[112, :, 0].reshape(14, 16)[:, 7:9].mean(axis=1))]


def steps(*values: int) -> np.ndarray:
    """A 14 x 14 image whose columns are 14 steps of these values: each is one sample of `middle_row`."""
    return np.tile(np.asarray(values, np.int16), (14, 1))


def test_rescale_and_window_by_the_standard() -> None:
    values = steps(0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200, 1300)
    # HU = value * 2 - 1000; window 0 +- 500 by PS3.3 C.11.2.1.2.1: ((hu - (c - .5)) / (w - 1) + .5) * 255
    data = made(values, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[0, 40], WindowWidth=[1000, 80])
    hounsfield = values[0] * 2.0 - 1000
    expected = np.clip(((hounsfield + 0.5) / 999 + 0.5) * 255, 0, 255)
    assert np.abs(np.array(middle_row(data)) - np.rint(expected)).max() <= 1
    exact = made(values, WindowCenter=500, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert np.abs(np.array(middle_row(exact)) - np.clip(values[0] / 1000 * 255, 0, 255)).max() <= 1


def test_windowed_on_hand_made_numbers() -> None:
    values = np.array([-50.0, 0.0, 50.0, 100.0, 150.0], np.float32)
    assert pixels.windowed(values, 0.0, 100.0).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("low", [-32_768, -300, 0, 32_000])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 100, "WindowWidth": 300}, {"RescaleSlope": -0.37}])
def test_looking_levels_up_is_working_each_pixel_out(
    low: int, window: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(low + 40_000).integers(low, low + 767, (90, 70)).astype(np.int16)
    dataset = read_dataset(made(image, **window))
    assert pixels._levels(image) is not image
    looked_up = pixels._grey(dataset, image, 0)
    monkeypatch.setattr(pixels, "_levels", lambda stored: stored)
    assert np.array_equal(looked_up, pixels._grey(dataset, image, 0))


@pytest.mark.parametrize("extremes", [(-32_768, 32_767), (0, 65_535)])
def test_levels_reach_from_one_end_of_a_type_to_the_other(extremes: tuple[int, int]) -> None:
    kind = np.int16 if extremes[0] else np.uint16
    image = np.linspace(*extremes, 400 * 400).astype(kind).reshape(400, 400)
    levels = pixels._levels(image)
    assert (levels.size, levels.dtype) == (65_536, kind)
    shown = (levels.astype(int) - extremes[0]) // 257
    assert np.array_equal(
        pixels._looked_up(image, levels, shown.astype(np.uint8)), (image.astype(int) - extremes[0]) // 257
    )


def test_few_pixels_and_floats_are_worked_out_one_by_one() -> None:
    for image in (np.array([[0, 30_000]], np.int16), np.array([[0.5, 2.0] * 9], np.float32)):
        assert pixels._levels(image) is image


def test_percentiles_where_there_is_no_usable_window() -> None:
    ramp = np.tile(np.arange(200, dtype=np.int16), (200, 1))
    ramp[0, 0] = 30_000  # one hot pixel must not darken the rest
    for window in ({}, {"WindowCenter": 100, "WindowWidth": 0}, {"WindowCenter": -9000, "WindowWidth": 10}):
        row = middle_row(made(ramp, **window))
        assert row[0] < 15 and row[-1] > 240 and sorted(row) == row


def test_monochrome1_is_the_inverse_of_monochrome2() -> None:
    ramp = (np.arange(224 * 224) % 1000).astype(np.int16).reshape(224, 224)  # not resized: equal to the last bit
    shown, inverted = (
        image_input(made(ramp, PhotometricInterpretation=kind, WindowCenter=500, WindowWidth=1000))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert np.array_equal(shown, 255 - inverted)


def test_a_multi_frame_object_is_its_middle_frame() -> None:
    frames = np.stack([RAMP, RAMP.T, RAMP[::-1]])
    assert np.array_equal(image_input(made(frames)), image_input(made(RAMP.T.copy())))


def test_enhanced_objects_have_their_window_in_functional_groups() -> None:
    data = real("eCT_Supplemental.dcm")
    dataset = read_dataset(data)
    assert "WindowCenter" not in dataset and pixels._window(dataset, 1) is not None
    assert check_image(dataset).frames == 2 and image_input(data).std() > 10


def test_colour_is_rgb_whatever_it_was_stored_as() -> None:
    rgb = image_input(real("SC_rgb.dcm")).astype(int)
    assert rgb[8, 112].tolist() == [255, 0, 0] and rgb[56, 112].tolist() == [0, 255, 0]
    for name in (
        "SC_rgb_16bit",
        "SC_rgb_rle",
        "SC_rgb_jpeg_gdcm",
        "SC_rgb_32bit",
        "SC_rgb_expb_16bit",
        "SC_rgb_gdcm_KY",
    ):
        assert np.abs(image_input(real(f"{name}.dcm")) - rgb).max() <= 1, name
    for name in ("SC_ybr_full_uncompressed", "SC_ybr_full_422_uncompressed", "SC_rgb_jpeg_dcmtk"):
        assert np.abs(image_input(real(f"{name}.dcm")) - rgb).mean() < 4, name


def test_a_palette_is_applied_whatever_its_byte_order() -> None:
    little, big = (image_input(real(f"OBXXXX1A{kind}.dcm")) for kind in ("", "_expb"))
    assert np.abs(little.astype(int) - big).max() <= 1 and little.max() > 200
    assert (little[..., 0] != little[..., 2]).any()


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        ([1, 0, 0, 0, 1, 0], (False, False)),  # axial
        ([-1, 0, 0, 0, 1, 0], (False, True)),
        ([1, 0, 0, 0, -1, 0], (True, False)),
        ([1, 0, 0, 0, 0, -1], (False, False)),  # coronal, head on top
        ([1, 0, 0, 0, 0, 1], (True, False)),
        ([0, 1, 0, 0, 0, -1], (False, False)),  # sagittal
        (["x"] * 6, (False, False)),
        (None, (False, False)),
    ],
)
def test_flipped_images_are_turned(orientation: Any, turned: tuple[bool, bool]) -> None:
    assert pixels.flips(orientation) == turned


def test_orientation_turns_the_pixels() -> None:
    plain = image_input(made(RAMP, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    turned = image_input(made(RAMP, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]))
    assert np.array_equal(turned, plain[::-1, ::-1]) and not np.array_equal(turned, plain)


def test_aspect_is_kept_with_black_borders() -> None:
    array = image_input(made(np.tile(np.array([100, 200], np.uint8), (20, 20)), WindowCenter=50, WindowWidth=20))
    tall = image_input(made(np.tile(np.array([[0], [200]], np.uint8), (20, 10)) + 30))
    assert array.shape == tall.shape == (224, 224, 3)
    assert tall[:, :80].max() == 0 and tall[:, -80:].max() == 0 and tall[:, 112].max() > 200


def test_the_same_bytes_give_the_same_digest() -> None:
    for name in ("CT_small.dcm", "examples_ybr_color.dcm", "693_J2KI.dcm"):
        assert array_digest(image_input(real(name))) == array_digest(image_input(bytes(bytearray(real(name)))))


def test_thumbnails() -> None:
    with Image.open(BytesIO(thumbnail(image_input(real("CT_small.dcm"))))) as picture:
        assert (picture.format, picture.size) == ("PNG", (96, 96))
