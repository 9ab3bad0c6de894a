"""What is done with an element, from its tag and the options: an allow list with the standard's table on top of it.

Belongs here: options, and which element gets which treatment. Does not belong here: the treatments (values), walking a
data set (walk).

An element that pydicom's dictionary does not know is removed, and so is a text whose keyword is on no list here. What
is kept is held to a pattern, a vocabulary or a size; a value that does not pass is emptied, replaced by a dummy or
removed, as table E.1-1 says for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from medvec_assets.deid.dicom import values
from medvec_assets.deid.dicom.table import rows
from medvec_assets.deid.dicom.terms import TERMS, UNITS, VENDORS, WORDS, listed
from medvec_assets.deid.dicom.values import Keep


@dataclass(frozen=True)
class Options:
    """What is retained beyond the basic profile; each is an option of PS3.15 and stands in (0012,0064).

    `pixels`: `refuse` an image that may have text in it, `clean` it (text is found and blanked), or `clean_all`: look at
    every image, also of the kinds that hardly ever have any."""

    dates: bool = True
    patient_characteristics: bool = True
    descriptors: bool = True
    device: bool = False  # HIPAA lists device identifiers and serial numbers
    safe_private: bool = True
    pixels: str = "refuse"

    @property
    def codes(self) -> tuple[str, ...]:
        chosen = {
            "113105": self.descriptors,
            "113107": self.dates,
            "113108": self.patient_characteristics,
            "113109": self.device,
            "113111": self.safe_private,
        }
        return ("113100", *(code for code, is_on in chosen.items() if is_on))


@dataclass(frozen=True)
class Rule:
    """`kind`: drop, subject, uid, date, time, datetime, value (`keep` decides), sequence, bulk or pixels. `otherwise`: what
    becomes of an element that is dropped, or whose value does not pass: X removed, Z emptied, D a dummy."""

    keyword: str
    vr: str
    kind: str
    otherwise: str = "X"
    keep: Keep | None = None


LONG_VRS = listed("OB OD OF OL OV OW SQ SV UC UN UR UT UV")
TEXT_VRS = listed("AE CS LO LT PN SH ST UC UR UT")
DATE_KINDS = {"DA": "date", "TM": "time", "DT": "datetime"}
DUMMIES = {"DA": b"19000101", "TM": b"000000", "DT": b"19000101000000"} | dict.fromkeys(
    ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), b"REMOVED"
)
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_WIDTHS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8}
_MAX_TEXT = {"SH": 16, "LO": 64, "CS": 16}
# Computed anew for each file, or meaningless in one that is rewritten in ASCII with defined lengths.
_OWN = listed(
    """
    SpecificCharacterSet PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
    LongitudinalTemporalInformationModified
    """
)
# Bulk data that are numbers by their definition. Not among them: ICC profiles and device settings, which hold text.
_BULK = listed(
    """
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    AlphaPaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData SegmentedAlphaPaletteColorLookupTableData LUTData BlendingLookupTableData
    ExtendedOffsetTable ExtendedOffsetTableLengths SpectroscopyData WaveformData WaveformPaddingValue ChannelMinimumValue
    ChannelMaximumValue VectorGridData PointCoordinatesData DoublePointCoordinatesData LongPrimitivePointIndexList
    LongTrianglePointIndexList LongEdgePointIndexList LongVertexPointIndexList TrackPointIndexList
    FirstOrderPhaseCorrectionAngle
    """
)
_DESCRIPTIONS = listed(
    """
    AttenuationCorrectionMethod CodecVersion ContentDescription ContrastBolusRoute ConvolutionKernel
    DimensionDescriptionLabel FilterType LUTExplanation PositionReferenceIndicator PulseSequenceName Radiopharmaceutical
    RadiopharmaceuticalRoute ReceiveCoilName ReconstructionMethod ScatterCorrectionMethod SegmentAlgorithmName
    SegmentDescription SegmentLabel SequenceName TransmitCoilName WindowCenterWidthExplanation
    """
)
_DIGITS = values.matching(r"\d{1,4}")
_PATTERNS: dict[str, Keep] = {
    "PatientAge": values.age,
    "PatientSize": values.within(0, 2.8),  # metres
    "PatientWeight": values.within(0, 400),  # kilograms
    "TimezoneOffsetFromUTC": values.matching(r"[+-]\d{4}"),
    "StackID": _DIGITS,
    "ImagedNucleus": values.matching(r"\d{1,3}[A-Z][a-z]?"),
    "Manufacturer": values.words(VENDORS, 64),
    "ManufacturerModelName": values.words(VENDORS, 64),
    "RescaleType": values.terms(UNITS),
    "ModalityLUTType": values.terms(UNITS),
    "RealWorldValueLUTLabel": values.words(WORDS, 16),
    "LUTLabel": values.words(WORDS, 16),
}
# Doses, activities, counts and microseconds: the only numbers with more than MAX_DIGITS digits that mean something.
_LARGE = listed(
    """
    RadionuclideTotalDose RadiopharmaceuticalSpecificActivity CountsAccumulated PrimaryPromptsCountsAccumulated
    SecondaryCountsAccumulated FrameReferenceTime ActualFrameDuration ExposureInuAs ExposureTimeInuS
    XRayTubeCurrentInuA RadionuclideHalfLife DoseCalibrationFactor
    """
)
_DEVICE = values.matching(r"[A-Za-z0-9 .,:/+_-]{1,64}")


@cache
def table(options: Options) -> dict[int, Rule]:
    """The rules under these options that were already looked up; `rule_of` fills it."""
    return {}


def rule_of(tag: int, options: Options) -> Rule:
    """The rule of a standard element. Private ones (an odd group) are no business of it."""
    from pydicom.datadict import dictionary_has_tag, get_entry

    group = tag >> 16
    if group & 0xFF00 in (0x5000, 0x6000):
        return Rule("Overlays" if group >= 0x6000 else "Curves", "", "drop")
    if group in (0x0000, 0x0002, 0x0004, 0xFFFA, 0xFFFC) or not tag & 0xFFFF or not dictionary_has_tag(tag):
        return Rule("NotInDictionary", "", "drop")
    vr, vm, _, _, keyword = get_entry(tag)
    row = rows().get(keyword)
    if keyword in _OWN:
        return Rule(keyword, vr, "drop")
    if keyword in ("PatientID", "PatientName"):
        return Rule(keyword, vr, "subject")
    if tag in PIXELS:
        return Rule(keyword, vr, "pixels")
    if row is None:
        return _unlisted(keyword, vr, vm, options)
    if row.action == "U":
        return Rule(keyword, vr, "sequence" if vr == "SQ" else "uid")
    kept = _retained(keyword, vr, vm, row.options, options)
    return kept(otherwise=row.action) if kept else Rule(keyword, vr, "drop", row.action)


def _retained(keyword: str, vr: str, vm: str, letters: str, options: Options) -> Callable[..., Rule] | None:
    """How an option keeps a listed attribute; None if none does."""
    rule = partial(Rule, keyword, vr)
    if "T" in letters and options.dates:
        if vr in DATE_KINDS:
            return partial(rule, DATE_KINDS[vr])
        return partial(rule, "value", keep=_PATTERNS[keyword]) if keyword in _PATTERNS else None
    if "P" in letters and options.patient_characteristics and (keep := _keep(keyword, vr, vm)):
        return partial(rule, "value", keep=keep)
    if "I" in letters and options.device and vr in TEXT_VRS:
        return partial(rule, "value", keep=_DEVICE)
    if "C" in letters and options.descriptors and vr in TEXT_VRS:
        return partial(rule, "value", keep=values.words(WORDS, _MAX_TEXT.get(vr, 1_024)))
    return None


def _unlisted(keyword: str, vr: str, vm: str, options: Options) -> Rule:
    """An attribute that table E.1-1 does not name: kept if its kind cannot say who somebody is, and removed otherwise."""
    if vr == "SQ":
        return Rule(keyword, vr, "sequence")
    if vr == "UI":
        return Rule(keyword, vr, "uid")
    if vr in DATE_KINDS:
        return Rule(keyword, vr, DATE_KINDS[vr] if options.dates else "drop", "Z")
    if keyword in _BULK:
        return Rule(keyword, vr, "bulk")
    keep = _keep(keyword, vr, vm)
    return Rule(keyword, vr, "value", "Z", keep) if keep else Rule(keyword, vr, "drop")


def _keep(keyword: str, vr: str, vm: str) -> Keep | None:
    from pydicom.datadict import dictionary_has_tag

    if keyword in _PATTERNS:
        return _PATTERNS[keyword]
    if keyword in _DESCRIPTIONS:
        return values.words(WORDS, _MAX_TEXT.get(vr, 1_024))
    digits = values.LARGE if keyword in _LARGE else values.MAX_DIGITS
    simple: dict[str, Callable[[], Keep]] = {
        "CS": lambda: values.terms(TERMS),
        "IS": lambda: values.integers(digits),
        "DS": lambda: values.decimals(digits),
        "AT": lambda: values.tags(lambda tag: not tag >> 16 & 1 and dictionary_has_tag(tag)),
    }
    if vr in simple:
        return simple[vr]()
    width = _WIDTHS.get(vr[:2])  # "US or SS", "US or OW": the first is as wide as the others
    return None if width is None else values.binary(width, vm, vr in ("FL", "FD"))
