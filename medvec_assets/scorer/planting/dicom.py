"""Planting into DICOM files: every part of PS3.10 and every VR that text can be typed into.

Belongs here: which elements are planted with what, and writing the copy. Does not belong here: which of them a
de-identifier may keep: an identifier in any of them is one, and no rule's table is read here.

All UIDs that the standard does not define are mapped, references with them, so that a copy refers to its neighbours' copies
as the originals did; each copy also refers to the first one of its subject. Instance numbers count the copies: by them
`dicom_folder` knows an output's input again.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from medvec_assets.scorer.planting import Planted, Subject
from medvec_assets.scorer.planting.dicom_pixels import hide_beside_pixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FIRST_INSTANCE = 7_000
STANDARD_ROOT = "1.2.840.10008."
ROOM = {
    "AE": 16,
    "CS": 16,
    "LO": 64,
    "LT": 10_240,
    "PN": 64,
    "SH": 16,
    "ST": 1_024,
    "UC": 1_024,
    "UR": 1_024,
    "UT": 1_024,
}
# keyword -> kind of token; the value representation is the dictionary's
ELEMENTS = {
    "ReferringPhysicianName": "accented_name",
    "ConsultingPhysicianName": "name",
    "PerformingPhysicianName": "name",
    "PhysiciansOfRecord": "name",
    "NameOfPhysiciansReadingStudy": "name",
    "OperatorsName": "name",
    "RequestingPhysician": "name",
    "OtherPatientNames": "name",
    "PatientBirthName": "name",
    "PatientMotherBirthName": "name",
    "ResponsiblePerson": "name",
    "OtherPatientIDs": "mrn",
    "MedicalRecordLocator": "mrn",
    "IssuerOfPatientID": "institution",
    "PatientAddress": "address",
    "PatientTelephoneNumbers": "phone",
    "RegionOfResidence": "zip",
    "InsurancePlanIdentification": "health_plan",
    "AdmissionID": "account",
    "ServiceEpisodeID": "account",
    "Occupation": "institution",
    "AccessionNumber": "accession",
    "StudyID": "accession",
    "RequestedProcedureID": "accession",
    "PerformedProcedureStepID": "accession",
    "PlacerOrderNumberImagingServiceRequest": "accession",
    "FillerOrderNumberImagingServiceRequest": "accession",
    "StationName": "device_serial",
    "DeviceSerialNumber": "device_serial",
    "DeviceID": "device_serial",
    "PlateID": "plate",
    "InstitutionName": "institution",
    "InstitutionAddress": "address",
    "InstitutionalDepartmentName": "institution",
    "CurrentPatientLocation": "address",
    "StudyDescription": "name",
    "SeriesDescription": "mrn",
    "ProtocolName": "name",
    "RequestedProcedureDescription": "name",
    "PerformedProcedureStepDescription": "ssn",
    "CommentsOnThePerformedProcedureStep": "phone",
    "AcquisitionProtocolDescription": "name",
    "DerivationDescription": "email",
    "IssueDateOfImagingServiceRequest": "date",
    "RetrieveAETitle": "ae_title",
    "StationAETitle": "ae_title",
    "PerformedStationAETitle": "ae_title",
    "RetrieveURL": "url",
    "LongCodeValue": "license",
    "LabelText": "name",
    "InterpretationText": "mrn",
    "BodyPartExamined": "name",
    "Manufacturer": "institution",
    "ManufacturerModelName": "institution",
    "StackID": "accession",
    "StudyDate": "date",
    "SeriesDate": "date",
    "AcquisitionDate": "date",
    "ContentDate": "date",
    "AdmittingDate": "date",
    "PerformedProcedureStepStartDate": "date",
    "LastMenstrualDate": "date",
    "AcquisitionDateTime": "date",
}
FREE_TEXT = (
    "PatientComments",
    "AdditionalPatientHistory",
    "ImageComments",
    "RequestedProcedureComments",
    "VisitComments",
)
SEQUENCES = {  # sequence -> elements of its item
    "RequestAttributesSequence": {"ScheduledProcedureStepDescription": "name", "RequestedProcedureID": "accession"},
    "OtherPatientIDsSequence": {"PatientID": "mrn", "IssuerOfPatientID": "institution"},
    "OriginalAttributesSequence": {"SourceOfPreviousValues": "institution"},
    "ReferringPhysicianIdentificationSequence": {"PersonAddress": "address", "PersonTelephoneNumbers": "phone"},
    "ReferencedPatientSequence": {"PatientName": "name"},
    "PatientInsurancePlanCodeSequence": {"CodeValue": "health_plan", "CodeMeaning": "institution"},
    "ProcedureCodeSequence": {"CodeValue": "accession", "CodeMeaning": "name"},  # a code of the hospital's own
    "EnergyWindowInformationSequence": {"EnergyWindowName": "name", "PatientID": "mrn"},
    "AnatomicRegionSequence": {"CodeMeaning": "name"},
}
REGION_CODE = ("T-D1100", "SRT")  # a code that everybody knows, under a meaning that somebody typed
PRIVATE_BLOCKS = {0x0009: "GEMS_IDEN_01", 0x0019: "MEDVEC TEST 1.0", 0x0029: "SIEMENS CSA HEADER"}


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The file full of identifiers, and one that also has a name where a parser wants a number."""
    if data[128:132] != b"DICM":
        return
    good = _copy(data, subject, damaged=False)
    if good is None:
        return
    yield Planted(good)
    bad = _copy(data, subject, damaged=True)
    if bad is not None:
        yield Planted(bad, damaged=True)


def _copy(data: bytes, subject: Subject, *, damaged: bool) -> bytes | None:
    """The file with every plant in it; None if it cannot be read or written whole."""
    from pydicom import dcmread

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(BytesIO(data))
            dataset.walk(lambda held, element: element.value)  # everything is converted, or it fails here
            _plant_all(dataset, subject)
            if damaged:
                _damage(dataset, subject)
            return _written(dataset)
    except (
        AttributeError,
        LookupError,
        NotImplementedError,
        OSError,
        TypeError,
        ValueError,
        RuntimeError,
        struct.error,
    ):
        return None  # what a damaged file makes pydicom raise; its manifest row is planted all the same


def _plant_all(dataset: Dataset, subject: Subject) -> None:
    _map_uids(dataset, subject)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    _set(dataset, "PatientID", subject.ref)
    _set(dataset, "PatientName", f"{subject.family}^{subject.given}")
    _set(dataset, "PatientBirthDate", f"{subject.mint.date('DA PatientBirthDate', 0):%Y%m%d}")
    _set(dataset, "PatientAge", subject.mint.plant("age", "AS PatientAge"))
    for keyword, kind in ELEMENTS.items():
        _plant_element(dataset, keyword, kind, subject)
    for keyword in FREE_TEXT:
        _set(dataset, keyword, subject.mint.sentence(f"free text {keyword}"))
    _plant_numbers(dataset, subject)
    _plant_sequences(dataset, subject)
    _plant_report(dataset, subject)
    _plant_private(dataset, subject)
    _plant_planes(dataset, subject)
    _plant_file(dataset, subject)


def _set(dataset: Dataset, keyword: str, value: Any) -> None:
    if value is not None:
        setattr(dataset, keyword, value)


def _plant_element(dataset: Dataset, keyword: str, kind: str, subject: Subject, above: str = "") -> None:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None, f"{keyword} is in no data dictionary"
    vr = dictionary_VR(tag)
    place = f"{above}{vr} {keyword}"
    if kind == "date":
        day = subject.mint.date(place)
        _set(dataset, keyword, f"{day:%Y%m%d}" + ("101530.250000" if vr == "DT" else ""))
        return
    value = subject.mint.plant(kind, place, ROOM[vr])
    if value is not None and vr == "PN":
        given, _, family = value.rpartition(" ")
        value = f"{family}^{given}"
    if value is not None and vr == "CS":
        value = value.upper()
    _set(dataset, keyword, value)


def _plant_numbers(dataset: Dataset, subject: Subject) -> None:
    """Numbers that are somebody's: too long for what the element measures, or digits where a parser sees a float or tags."""
    mint = subject.mint
    dataset.AcquisitionNumber = int(mint.digits(9, "IS AcquisitionNumber"))
    dataset.TableHeight = mint.digits(10, "DS TableHeight")
    (dataset.TemporalPositionTimeOffset,) = struct.unpack(
        "<d", mint.digits(8, "FD TemporalPositionTimeOffset").encode()
    )
    halves = struct.unpack("<4H", mint.digits(8, "AT SelectorSequencePointer").encode())
    dataset.SelectorSequencePointer = [halves[0] << 16 | halves[1], halves[2] << 16 | halves[3]]


def _plant_sequences(dataset: Dataset, subject: Subject) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    for keyword, elements in SEQUENCES.items():
        item, inner = Dataset(), Dataset()
        for name, kind in elements.items():
            _plant_element(item, name, kind, subject, f"sequence {keyword}/")
        inner.ScheduledProcedureStepID = subject.mint.plant("accession", f"nested sequence in {keyword}", 16)
        inner.CodeMeaning = subject.mint.plant("name", f"nested sequence in {keyword}", 64)
        item.ScheduledProtocolCodeSequence = Sequence([inner])
        setattr(dataset, keyword, Sequence([item]))
    region = dataset.AnatomicRegionSequence[0]
    region.CodeValue, region.CodingSchemeDesignator = REGION_CODE


def _plant_report(dataset: Dataset, subject: Subject) -> None:
    """The content tree of a structured report, as evidence that travels with images has it."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    text, person = Dataset(), Dataset()
    text.RelationshipType, text.ValueType = "CONTAINS", "TEXT"
    text.TextValue = subject.mint.sentence("structured report TEXT")
    person.RelationshipType, person.ValueType = "HAS OBS CONTEXT", "PNAME"
    person.PersonName = subject.mint.plant("name", "structured report PNAME")
    text.ContentSequence = Sequence([person])
    dataset.ContentSequence = Sequence([text])


def _plant_private(dataset: Dataset, subject: Subject) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    mint = subject.mint
    for group, creator in PRIVATE_BLOCKS.items():
        block, place = dataset.private_block(group, creator, create=True), f"private block {creator}"
        block.add_new(0x01, "LO", mint.plant("name", place))
        block.add_new(0x02, "SH", mint.plant("accession", place, ROOM["SH"]))
        block.add_new(0x03, "OB", _even((mint.plant("mrn", f"{place}, OB") or "").encode()))
        block.add_new(0x04, "UN", _even((mint.plant("name", f"{place}, UN") or "").encode("utf-16-le")))
        block.add_new(0x05, "DA", f"{mint.date(place):%Y%m%d}")
        item = Dataset()
        item.private_block(group, creator, create=True).add_new(0x01, "LT", mint.sentence(f"{place}, sequence"))
        block.add_new(0x06, "SQ", Sequence([item]))
        block.add_new(0x07, "DS", mint.digits(10, place))
    nobody = mint.plant("name", "private element without a creator")
    dataset.add_new((0x0031, 0x1001), "LO", nobody)
    # PS3.15 table E.3.10-1 calls it safe: a factor.
    safe = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    safe.add_new(0x00, "DS", mint.digits(10, "private element that is safe by the standard"))
    dataset.add_new((0x0018, 0xFFF1), "LO", mint.plant("name", "element in no dictionary"))


def _plant_planes(dataset: Dataset, subject: Subject) -> None:
    """Overlays, the icon, a curve, trailing padding: what is drawn or hidden beside the pixels."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    mint = subject.mint
    dataset.add_new((0x6000, 0x0010), "US", 8)
    dataset.add_new((0x6000, 0x0011), "US", 64)
    dataset.add_new((0x6000, 0x0022), "LO", mint.plant("name", "overlay description"))
    dataset.add_new((0x6000, 0x1500), "LO", mint.plant("mrn", "overlay label"))
    dataset.add_new((0x6000, 0x3000), "OW", _even((mint.plant("name", "overlay data") or "").encode()).ljust(64, b"\0"))
    dataset.add_new((0x6002, 0x4000), "LT", mint.sentence("overlay comments"))
    dataset.add_new((0x5000, 0x2500), "LO", mint.plant("name", "curve label"))
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.add_new((0x7FE0, 0x0010), "OB", _even((mint.plant("name", "icon image") or "").encode()).ljust(64, b"\0"))
    dataset.IconImageSequence = Sequence([icon])
    dataset.add_new((0xFFFC, 0xFFFC), "OB", _even((mint.plant("name", "trailing padding") or "").encode()))


def _plant_file(dataset: Dataset, subject: Subject) -> None:
    from pydicom.uid import UID

    mint, meta = subject.mint, dataset.file_meta
    preamble = f"{mint.plant('name', 'file preamble')} {mint.plant('ssn', 'file preamble')}"
    dataset.preamble = preamble.encode().ljust(128, b"\0")[:128]
    for keyword in (
        "SourceApplicationEntityTitle",
        "SendingApplicationEntityTitle",
        "ReceivingApplicationEntityTitle",
    ):
        setattr(meta, keyword, mint.plant("ae_title", f"file meta {keyword}"))
    meta.PrivateInformationCreatorUID = UID(mint.plant("uid", "file meta PrivateInformationCreatorUID") or "")
    meta.PrivateInformation = _even(mint.sentence("file meta PrivateInformation").encode())


# ---------------------------------------------------------------- identities and references


def _map_uids(dataset: Dataset, subject: Subject) -> None:
    """Every UID of an instance, a series, a study, a frame of reference becomes the subject's; then the references."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import UID

    for element in list(dataset.iterall()):
        if element.VR == "UI" and element.value:
            element.value = _mapped(element.value, f"UI {element.keyword or 'private'}", subject)
    number = subject.mint.number()
    own = UID(subject.uid(f"instance {number}", "UI SOPInstanceUID"))  # a damaged copy is another instance
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = own
    dataset.InstanceNumber = FIRST_INSTANCE + number
    subject.objects.append(own)
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")
    item.ReferencedSOPInstanceUID = subject.objects[0]
    dataset.ReferencedImageSequence = Sequence([item])
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = dataset.get("StudyInstanceUID", own)
    dataset.ReferencedStudySequence = Sequence([study])


def _mapped(value: Any, place: str, subject: Subject) -> Any:
    if isinstance(value, str):
        return value if value.startswith(STANDARD_ROOT) else subject.uid(value, place)
    return [_mapped(str(one), place, subject) for one in value]


# ---------------------------------------------------------------- bytes


def _damage(dataset: Dataset, subject: Subject) -> None:
    """A name where a number belongs: parsers quote what they cannot convert. And what stands where nothing should."""
    hide_beside_pixels(dataset, subject)
    dataset.EncapsulatedDocument = _even((subject.mint.plant("name", "encapsulated document") or "").encode())
    dataset.ICCProfile = _even((subject.mint.plant("name", "colour profile") or "").encode())
    for keyword, vr in (("InstanceCreationDate", "DA"), ("ContentTime", "TM")):
        dataset[keyword] = _unchecked(
            keyword, subject.mint.plant("name", f"a name in {vr} {keyword}", ROOM["CS"]) or "", vr
        )
    for keyword in ("RescaleSlope", "RescaleIntercept", "NumberOfFrames", "LUTData"):
        value = subject.mint.plant("name", f"a name in {keyword}, which a parser refuses", ROOM["CS"])
        if value is not None:
            dataset[keyword] = _unchecked(keyword, value)
    series = subject.mint.plant("uid", "UI SeriesInstanceUID of a damaged file")
    _set(dataset, "SeriesInstanceUID", series)


def _unchecked(keyword: str, value: str, vr: str = "LO") -> Any:
    """An element that holds text that is none of its keyword's, as a broken exporter writes it."""
    from pydicom.config import IGNORE
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return DataElement(tag, vr, value, validation_mode=IGNORE)


def _written(dataset: Dataset) -> bytes:
    from pydicom import dcmwrite

    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
