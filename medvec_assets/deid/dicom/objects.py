"""Which DICOM objects can be de-identified at all, and which may have text in their pixels.

Belongs here: rules about a whole object. Does not belong here: its elements (rules), looking for text (burned_in).

Refused is what is made of text or of a format we cannot look into: reports, documents, directories, raw data, sound,
video. An object of a class that the standard does not register is refused too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvec_assets.deid.dicom.rules import PIXELS
from medvec_assets.deid.dicom.terms import listed
from medvec_assets.modalities.imaging.dicom_file import rejected

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_RISKY_MODALITIES = listed("US IVUS XC ES GM SC DOC OT HC IO PX SM BDUS OP OPT OAM AU VL")
_RISKY_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{root}" for root in ("3", "6", "7", "77.1")
)  # ultrasound of old and new, secondary capture, visible light
_RISKY_IMAGE_TYPES = ("SCREEN", "SAVE", "CAPTURE", "DOSE_INFO", "PASTED", "REPORT")
_REFUSED = {  # words of a SOP class's registered name -> (code, rule)
    "Encapsulated": ("encapsulated_document", "holds a document of another format"),
    "Media Storage Directory": ("directory", "is a directory of other files"),
    " SR": ("structured_content", "is a report, which is made of text"),
    "Key Object": ("structured_content", "is a report, which is made of text"),
    "Document": ("structured_content", "is a report, which is made of text"),
    "Procedure Log": ("structured_content", "is a report, which is made of text"),
    "Presentation State": ("graphics", "is a presentation of text and graphics"),
    "Audio": ("sound", "holds sound"),
    "Raw Data": ("private_content", "holds data whose format only its maker knows"),
    "Video": ("video", "is a video"),
}
_NOTHING_TO_DO = "none: objects of this kind are left out by rule"


def check_kind(dataset: Dataset) -> tuple[str, str]:
    """(SOP class, SOP instance) of an object that can be de-identified. Raises ObjectRejected."""
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    meta = dataset.file_meta
    sop_class = raw_text(dataset, 0x00080016) or str(meta.get("MediaStorageSOPClassUID") or "").strip(" \0")
    instance = raw_text(dataset, 0x00080018) or str(meta.get("MediaStorageSOPInstanceUID") or "").strip(" \0")
    name = UID(sop_class, IGNORE).name
    if UID(sop_class, IGNORE).type != "SOP Class":
        rule = "is of no class that the standard registers"
        raise rejected("sop_class_unknown", rule, "convert it to a standard object at the source")
    for word, (code, rule) in _REFUSED.items():
        if word in name:
            raise rejected(code, rule, _NOTHING_TO_DO)
    if "Storage" not in name:
        raise rejected("not_an_object", "is a message and no stored object", _NOTHING_TO_DO)
    syntax = meta.TransferSyntaxUID
    if syntax.type != "Transfer Syntax":
        rule = "is in a transfer syntax that the standard does not register"
        raise rejected("unsupported_transfer_syntax", rule, "transcode it at the source")
    if "MPEG" in syntax.name or "HEVC" in syntax.name:
        raise rejected("video", "is a video", _NOTHING_TO_DO)
    if not instance:
        raise rejected("header_invalid", "names no instance", "mend or re-export the object")
    return sop_class, instance


def raw_text(dataset: Dataset, tag: int) -> str:
    """An ASCII value without asking pydicom to parse it, which costs more than all else that is asked of a small file."""
    raw: Any = dataset.get_item(tag)
    value = getattr(raw, "value", None)
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0")
    return "" if value is None else str(value).strip(" \0")


def may_show_text(dataset: Dataset, sop_class: str) -> bool:
    """Whether its header leaves room for text in the pixels: it says so, or it is of a kind that often has and does not
    say no."""
    if not any(tag in dataset for tag in PIXELS):
        return False
    said = raw_text(dataset, 0x00280301).upper()
    if said in ("YES", "NO"):
        return said == "YES"
    image_type = raw_text(dataset, 0x00080008).upper()
    return (
        raw_text(dataset, 0x00080060).upper() in _RISKY_MODALITIES
        or any(sop_class == root or sop_class.startswith(f"{root}.") for root in _RISKY_CLASSES)
        or any(word in image_type for word in _RISKY_IMAGE_TYPES)
        or 0x00080064 in dataset  # ConversionType
    )
