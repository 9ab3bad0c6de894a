"""The allow list of technical image attributes: what leaves bronze of a DICOM header. Everything else is dropped.

Belongs here: which elements are kept, and the terms or ranges a value must be in. A value that is free text, a date, a
UID, a name or a manufacturer's string is on no list, and a listed element whose value is not a defined term or a sane
number is dropped too: people type names into any field. Does not belong here: full de-identification of a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

PROFILE = "technical-allow-list-1"
HEADER_KEYWORDS = (
    "Modality",
    "BodyPartExamined",
    "Rows",
    "Columns",
    "BitsStored",
    "PhotometricInterpretation",
    "PixelSpacing",
    "SliceThickness",
)
"""The only elements whose values are looked at here."""


def _terms(text: str) -> frozenset[str]:
    return frozenset(text.split())


# PS3.3 C.7.3.1.1.1, the modalities that images have.
MODALITIES = _terms(
    """
    AR BI BMD CFM CR CT DG DMS DX ES FUSION GM IO IVOCT IVUS LS MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OT
    PA PT PX RF RG RTIMAGE SM TG US VA XA XC
    """
)
# PS3.16 annex L (Body Part Examined), and the joined regions that Imaging Data Commons' catalogue really uses.
BODY_PARTS = _terms(
    """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM ARTERY AXILLA BACK BILEDUCT BLADDER BRAIN BREAST BRONCHUS
    BUTTOCK CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON
    CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FIBULA FINGER FOOT FOREARM
    GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER
    LOWERLIMB LSPINE LSSPINE LUNG MANDIBLE MAXILLA MEDIASTINUM MOUTH NASOPHARYNX NECK NECKCHEST NECKCHESTABDOMEN
    NECKCHESTABDPELV NOSE OPTICCANAL ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHANTOM PHARYNX PROSTATE
    RADIUS RECTUM RIB SCAPULA SCROTUM SELLA SHOULDER SINUS SKULL SPINALCORD SPINE SPLEEN SSPINE STERNUM STOMACH
    TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TLSPINE TMJ TOE TONGUE TRACHEA TSPINE ULNA UPPERLIMB URETER
    URETHRA UTERUS VAGINA WHOLEBODY WRIST ZYGOMA
    """
)
PHOTOMETRIC = _terms(
    "MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT YBR_PARTIAL_420 YBR_PARTIAL_422"
) | {"PALETTE COLOR"}
MAX_MM = 1_000.0  # no pixel or slice measures a metre; a longer number is something else typed into the field
MAX_COUNT = 65_535  # what DICOM's 16-bit Rows and Columns can hold


def technical_attributes(
    header: Mapping[str, Any], *, transfer_syntax: str, instances: int, frames: int
) -> dict[str, Any]:
    """The kept attributes of a series. `header`: values of HEADER_KEYWORDS of its representative instance, in whatever
    type the parser gave them; `transfer_syntax`: a UID registered in the standard. A value off its list is left out."""
    attributes = {
        "modality": _term(header.get("Modality"), MODALITIES),
        "body_part": _term(header.get("BodyPartExamined"), BODY_PARTS),
        "rows": _count(header.get("Rows")),
        "columns": _count(header.get("Columns")),
        "instances": instances,
        "frames": frames,
        "bits_stored": _count(header.get("BitsStored")),
        "photometric_interpretation": _term(header.get("PhotometricInterpretation"), PHOTOMETRIC),
        "pixel_spacing_mm": _pair(header.get("PixelSpacing")),
        "slice_thickness_mm": _millimetres(header.get("SliceThickness")),
        "transfer_syntax": transfer_syntax,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _term(value: Any, terms: frozenset[str]) -> str | None:
    if not isinstance(value, str):
        return None
    term = value.strip(" \0").upper()
    # WHOLE BODY is the standard's WHOLEBODY with a space that many exporters put in.
    return next((form for form in (term, term.replace(" ", "")) if form in terms), None)


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and 0 < value <= MAX_COUNT else None


def _millimetres(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return round(number, 4) if math.isfinite(number) and 0 < number < MAX_MM else None


def _pair(value: Any) -> list[float] | None:
    """[between rows, between columns] in mm."""
    if value is None or isinstance(value, str | bytes | float | int):
        return None
    sides = [side for item in value if (side := _millimetres(item)) is not None]
    return sides if len(sides) == 2 else None
