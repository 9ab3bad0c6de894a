"""Images that are sent, and stand-ins for what reads and encodes them."""

from __future__ import annotations

import json
import struct
from io import BytesIO

import numpy as np
from PIL import Image

from helpers.query_world import R1, R2
from medvec_assets.query import decoder_process
from medvec_assets.query.decoder import Decoder
from medvec_assets.query.search import Upload
from resources import encoders
from resources.errors import ObjectRejected
from resources.settings import Settings

DICOM, PNG, NIFTI, GZIP = "application/dicom", "image/png", "application/x-nifti", "application/gzip"


class Bright:
    """Encodes what is bright as R1's vector and what is dark as R2's; keeps what it was given."""

    seen: list[np.ndarray] = []  # noqa: RUF012

    def __init__(self, ref: str, settings: Settings) -> None:
        self.card = encoders.card(ref, settings)

    def encode(self, batch: list[np.ndarray]) -> np.ndarray:
        self.seen[:] = batch
        return np.asarray([R1.vector if one.mean() > 100 else R2.vector for one in batch], np.float32)


class InProcess(Decoder):
    """Reads files by the very function of the decoder's process, and without it."""

    def decode(self, kind: str, data: bytes) -> Upload:
        header, _, pixels = decoder_process.answer(kind, data, self._max_pixels).partition(b"\n")
        if told := json.loads(header):
            raise ObjectRejected(told["message"], code=told["code"], remedy=told["remedy"])
        return Upload("0" * 64, np.frombuffer(pixels, np.uint8).reshape(224, 224, 3))


def png(width: int = 40, height: int = 30, level: int = 200) -> bytes:
    pixels = np.full((height, width), level, np.uint8)
    pixels[0, 0] = 0
    out = BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def nifti(*dims: int) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *dims, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header)
