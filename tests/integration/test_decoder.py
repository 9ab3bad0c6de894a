"""The process that reads uploads, as the service starts it: the same pixels as in ingest, and no way to a disk."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from helpers.dicom_files import edited, jpeg2000_bomb, real

from medvec_assets.modalities.imaging import image_input
from medvec_assets.query.decoder import Decoder
from resources.errors import ObjectRejected
from resources.settings import Settings

pytestmark = pytest.mark.integration


def test_files_are_read_in_a_process_that_can_write_nothing(tmp_path: Path) -> None:
    decoder = Decoder(Settings(home=tmp_path, decode_workers=1, api_upload_seconds=120.0))
    try:
        data = real("CT_small.dcm")
        assert np.array_equal(decoder.decode("imaging", data).model_input, image_input(data))
        [reader] = [one for one in psutil.Process().children() if "decoder_process" in " ".join(one.cmdline())]
        assert reader.rlimit(psutil.RLIMIT_FSIZE) == reader.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        for bad in (edited(BurnedInAnnotation="YES"), jpeg2000_bomb(60_000), b"", data[:5_000]):
            with pytest.raises(ObjectRejected):
                decoder.decode("imaging", bad)
        assert np.array_equal(decoder.decode("imaging", data).model_input, image_input(data))
        assert reader.is_running(), "what is refused does not end it"
    finally:
        decoder.close()
    assert not reader.is_running()
