"""Private attributes that are known to be safe: numbers of PS3.15 table E.3.10-1, each within the bounds of what it measures.

Belongs here: which private elements are kept, and their rules. Does not belong here: everything else that is private,
which is removed without being looked at.

Of the table only what is numeric or a term is taken, and of that what a research use of the pixels needs: diffusion,
SUV and acquisition timing. Its strings are names that a site may have typed.
"""

from __future__ import annotations

from collections.abc import Mapping

from medvec_assets.deid.dicom import values
from medvec_assets.deid.dicom.rules import Rule

_DECIMAL = values.decimals(values.MAX_DIGITS)
_INTEGER = values.integers(values.MAX_DIGITS)
# GE adds a multiple of 1e9 to a b-value to say how it was averaged.
_GE_B_VALUES = values.matching(r"(?:10000\d{5}|\d{1,5})(?:\\(?:10000\d{5}|\d{1,5}))*")


def _rule(keyword: str, vr: str, keep: values.Keep) -> Rule:
    return Rule(keyword, vr, "value", "X", keep)


# (private creator, group, last byte of the element) -> rule
SAFE: Mapping[tuple[str, int, int], Rule] = {
    ("Philips PET Private Group", 0x7053, 0x00): _rule("SUVFactor", "DS", _DECIMAL),
    ("Philips PET Private Group", 0x7053, 0x09): _rule("ActivityConcentrationFactor", "DS", _DECIMAL),
    ("Philips Imaging DD 001", 0x2001, 0x03): _rule("DiffusionBFactor", "FL", values.binary(4, "1", True)),
    ("SIEMENS MR HEADER", 0x0019, 0x0C): _rule("BValue", "IS", _INTEGER),
    ("SIEMENS MR HEADER", 0x0019, 0x0E): _rule("DiffusionGradientDirection", "FD", values.binary(8, "3", True)),
    ("SIEMENS MR HEADER", 0x0019, 0x27): _rule("BMatrix", "FD", values.binary(8, "6", True)),
    ("GEMS_PARM_01", 0x0043, 0x39): _rule("BValues", "IS", _GE_B_VALUES),
    ("GEMS_ACQU_01", 0x0019, 0x23): _rule("TableSpeed", "DS", _DECIMAL),
    ("GEMS_ACQU_01", 0x0019, 0x24): _rule("MidScanTime", "DS", _DECIMAL),
    ("GEMS_ACQU_01", 0x0019, 0x27): _rule("RotationSpeed", "DS", _DECIMAL),
    ("GEMS_HELIOS_01", 0x0045, 0x01): _rule("MacroRowsInDetector", "SS", values.binary(2, "1", False)),
    ("GEMS_HELIOS_01", 0x0045, 0x02): _rule("MacroWidthAtIsocenter", "FL", values.binary(4, "1", True)),
    ("GEMS_SERS_01", 0x0025, 0x07): _rule("ImagesInSeries", "SL", values.binary(4, "1", False)),
    ("ELSCINT1", 0x00E1, 0x21): _rule("DoseLengthProduct", "DS", _DECIMAL),
    ("ELSCINT1", 0x01E1, 0x50): _rule("AcquisitionDuration", "DS", _DECIMAL),
    ("ELSCINT1", 0x01F1, 0x07): _rule("TableVelocity", "DS", _DECIMAL),
    ("ELSCINT1", 0x01F1, 0x26): _rule("Pitch", "DS", _DECIMAL),
    ("ELSCINT1", 0x01F1, 0x27): _rule("RotationTime", "DS", _DECIMAL),
}
