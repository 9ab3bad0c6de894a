"""DICOM PS3.15 table E.1-1 as data: what the basic profile does with an attribute, and which options change that.

Belongs here: the table (edition 2026c) by keyword, and the codes of its options (PS3.16 CID 7050). Does not belong here:
what a kept value must look like (rules), how one is replaced (values). Attributes that are not listed here are no freer:
`rules` keeps an element only if it is known to be safe. Not listed: private, curve and overlay attributes, which are
removed by their group, and rows newer than pydicom's dictionary, which are removed because they are unknown.

A line is `ACTION [+OPTIONS]: keywords`. Actions: D dummy, Z empty or dummy, X remove, U a new UID; of `X/Z/D` and its
kin the last is done, which keeps an object valid whatever the attribute's type is in it (U* of a sequence: the UIDs
within are mapped, so references resolve). Options: T longitudinal
temporal information with modified dates, P patient characteristics, I device identity, C clean descriptors. The options
for full dates, UIDs, institutions, graphics and structured content are not offered, so their columns are left out.
The actions are those of 2026c; the option columns were read in an older edition, and a row that is newer has the options
of its like (a date T, a description C): nothing is kept for an option alone, its value must still pass its rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

EDITION = "2026c"

# PS3.16 CID 7050: code -> meaning.
CODES = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113105": "Clean Descriptors Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113111": "Retain Safe Private Option",
}


@dataclass(frozen=True)
class Row:
    """One attribute of the table: `action` is D, Z, X or U; `options` some of the letters T, P, I, C."""

    action: str
    options: str


@cache
def rows() -> dict[str, Row]:
    """keyword -> Row."""
    found: dict[str, Row] = {}
    for line in _TABLE.strip().splitlines():
        if not line.startswith(" "):
            head, line = line.split(":")
            actions, _, options = head.partition(" +")
            row = Row(actions.rstrip("*").rpartition("/")[2], options)
        for keyword in line.split():
            assert keyword not in found, keyword
            found[keyword] = row
    return found


_TABLE = """
D: AnnotationGroupUID CertificateOfSigner ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolID
    ClinicalTrialSponsorName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ContainerIdentifier
    ContentSequence ContextGroupLocalVersion ContextGroupVersion DestinationAE DigitalSignatureDateTime
    EncapsulatedDocument FlowIdentifier FlowIdentifierSequence GraphicAnnotationSequence ModifyingSystem
    PersonIdentificationCodeSequence PersonName ReasonForTheAttributeModification SelectorAEValue SelectorASValue
    SelectorDAValue SelectorDTValue SelectorLOValue SelectorLTValue SelectorOBValue SelectorPNValue SelectorSHValue
    SelectorSTValue SelectorTMValue SelectorUNValue SelectorURValue SelectorUTValue SourceIdentifier
    SpecimenIdentifier UnformattedTextValue VerifyingObserverName VerifyingObserverSequence VerifyingOrganization
D +C: AcquisitionFieldOfViewLabel AnnotationGroupLabel EntityLabel EntityLongLabel InterlockDescription
    InterlockOriginDescription RTPlanLabel RTPrescriptionLabel RTToleranceSetLabel RadiationDoseIdentificationLabel
    RadiationDoseInVivoMeasurementLabel RadiationGenerationModeLabel StructureSetLabel TreatmentPositionGroupLabel
    TreatmentToleranceViolationDescription UserContentLabel UserContentLongLabel
D +I: DeviceLabel XRayDetectorID XRaySourceID
D +T: AssertionDateTime AttributeModificationDateTime BeamHoldTransitionDateTime Date DateTime
    DecayCorrectionDateTime EffectiveDateTime ExclusionStartDateTime FrameAcquisitionDateTime FrameOriginTimestamp
    FrameReferenceDateTime FunctionalSyncPulse HangingProtocolCreationDateTime ImpedanceMeasurementDateTime
    InformationIssueDateTime InterlockDateTime OverrideDateTime RecordedRTControlPointDateTime ReferencedDateTime
    SafePositionExitDate SafePositionExitTime SafePositionReturnDate SafePositionReturnTime SourceEndDateTime
    SourceStartDateTime SourceStrengthReferenceDate SourceStrengthReferenceTime Time TreatmentControlPointDate
    TreatmentControlPointTime TreatmentToleranceViolationDateTime VerificationDateTime
U: AcquisitionUID ConcatenationUID ConceptualVolumeUID ConstituentConceptualVolumeUID DigitalSignatureUID
    DimensionOrganizationUID DoseReferenceUID DosimetricObjectiveUID FailedSOPInstanceUIDList FiducialUID
    FrameOfReferenceUID InstanceCreatorUID IrradiationEventUID LargePaletteColorLookupTableUID
    MediaStorageSOPInstanceUID MultiplexGroupUID ObservationSubjectUIDTrial ObservationUID
    PaletteColorLookupTableUID PatientSetupUID PresentationDisplayCollectionUID PresentationSequenceCollectionUID
    PyramidUID RTTreatmentPhaseUID ReferencedConceptualVolumeUID ReferencedDoseReferenceUID
    ReferencedDosimetricObjectiveUID ReferencedFiducialsUID ReferencedFrameOfReferenceUID
    ReferencedGeneralPurposeScheduledProcedureStepTransactionUID ReferencedObservationUIDTrial
    ReferencedSOPInstanceUID ReferencedSOPInstanceUIDInFile ReferencedTreatmentPositionGroupUID
    RelatedFrameOfReferenceUID RequestedSOPInstanceUID SOPInstanceUID SeriesInstanceUID SourceConceptualVolumeUID
    SourceFrameOfReferenceUID SpecimenUID StorageMediaFileSetUID StudyInstanceUID SynchronizationFrameOfReferenceUID
    TableTopPositionAlignmentUID TargetUID TemplateExtensionCreatorUID TemplateExtensionOrganizationUID TrackingUID
    TransactionUID TreatmentPositionGroupUID TreatmentSessionUID UID
U +I: DeviceUID ManufacturerDeviceClassUID
X: ActualHumanPerformersSequence AddressTrial AdmissionID AffectedSOPInstanceUID Arbitrary AuthorObserverSequence
    BranchOfService CameraOwnerName CertifiedTimestamp ClinicalTrialProtocolEthicsCommitteeApprovalNumber
    ClinicalTrialSeriesID ConfidentialityConstraintOnPatientDataDescription
    ConsultingPhysicianIdentificationSequence ContainerComponentID ContentCreatorIdentificationCodeSequence
    CountryOfResidence CurrentObserverTrial CurrentPatientLocation CustodialOrganizationSequence
    DataSetTrailingPadding DateOfInstallation DateOfManufacture DigitalSignaturesSequence DistributionAddress
    DistributionName EthnicGroupCodeSequence GPSAltitude GPSAltitudeRef GPSAreaInformation GPSDOP GPSDestBearing
    GPSDestBearingRef GPSDestDistance GPSDestDistanceRef GPSDestLatitude GPSDestLatitudeRef GPSDestLongitude
    GPSDestLongitudeRef GPSDifferential GPSImgDirection GPSImgDirectionRef GPSLatitude GPSLatitudeRef GPSLongitude
    GPSLongitudeRef GPSMapDatum GPSMeasureMode GPSProcessingMethod GPSSatellites GPSSpeed GPSSpeedRef GPSStatus
    GPSTimeStamp GPSTrack GPSTrackRef GPSVersionID HumanPerformerName HumanPerformerOrganization IconImageSequence
    ImagePresentationComments InstanceOriginStatus InstitutionAddress InstitutionalDepartmentName
    InstitutionalDepartmentTypeCodeSequence InsurancePlanIdentification
    IntendedRecipientsOfResultsIdentificationSequence InterpretationApproverSequence InterpretationAuthor
    InterpretationID InterpretationIDIssuer InterpretationRecorder InterpretationTranscriber IssuerOfAdmissionID
    IssuerOfAdmissionIDSequence IssuerOfClinicalTrialProtocolID IssuerOfClinicalTrialSeriesID
    IssuerOfClinicalTrialSiteID IssuerOfClinicalTrialSubjectID IssuerOfClinicalTrialSubjectReadingID
    IssuerOfClinicalTrialTimePointID IssuerOfPatientID IssuerOfServiceEpisodeID IssuerOfServiceEpisodeIDSequence MAC
    MedicalRecordLocator MilitaryRank ModifiedAttributesSequence ModifiedImageDescription ModifyingDeviceID
    NameOfPhysiciansReadingStudy NamesOfIntendedRecipientsOfResults NetworkID NonconformingDataElementValue
    NonconformingModifiedAttributesSequence OrderCallbackPhoneNumber OrderCallbackTelecomInformation OrderEnteredBy
    OrderEntererLocation OriginalAttributesSequence Originator OtherClinicalTrialProtocolIDsSequence OtherPatientIDs
    OtherPatientIDsSequence OtherPatientNames ParticipantSequence PatientAddress PatientBirthName PatientBirthTime
    PatientInstitutionResidence PatientInsurancePlanCodeSequence PatientMotherBirthName
    PatientPrimaryLanguageCodeSequence PatientPrimaryLanguageModifierCodeSequence PatientReligiousPreference
    PatientTelecomInformation PatientTelephoneNumbers PatientTransportArrangements PerformedLocation
    PerformedProcedureStepID PerformingPhysicianIdentificationSequence PerformingPhysicianName PersonAddress
    PersonTelecomInformation PersonTelephoneNumbers PhysicianApprovingInterpretation PhysiciansOfRecord
    PhysiciansOfRecordIdentificationSequence PhysiciansReadingStudyIdentificationSequence ROICreatorSequence
    ROIInterpreterSequence ReceivingAE ReferencedDigitalSignatureSequence ReferencedPatientAliasSequence
    ReferencedPatientPhotoSequence ReferencedPatientSequence ReferencedSOPInstanceMACSequence
    ReferringPhysicianAddress ReferringPhysicianIdentificationSequence ReferringPhysicianTelephoneNumbers
    RegionOfResidence RequestedProcedureID RequestedProcedureLocation RequestingAE RequestingPhysician
    RequestingService ResponsibleOrganization ResponsiblePerson ResultsDistributionListSequence ResultsID
    ResultsIDIssuer RetrieveAETitle ScheduledHumanPerformersSequence ScheduledPatientInstitutionResidence
    ScheduledPerformingPhysicianIdentificationSequence ScheduledPerformingPhysicianName ScheduledProcedureStepID
    ServiceEpisodeID SlideIdentifier SpecimenAccessionNumber StudyIDIssuer TelephoneNumberTrial TemplateLocalVersion
    TemplateVersion TextComments TextString TopicAuthor TopicKeywords TopicSubject TopicTitle
    VerbalSourceIdentifierCodeSequenceTrial VerbalSourceTrial
X +C: AcquisitionComments AcquisitionContextDescription AcquisitionProtocolDescription AdditionalPatientHistory
    AdmittingDiagnosesCodeSequence AdmittingDiagnosesDescription AnnotationGroupDescription BeamDescription
    BolusDescription ChannelDerivationDescription ChannelLabel ClinicalTrialSeriesDescription
    ClinicalTrialTimePointDescription CommentsOnRadiationDose CommentsOnThePerformedProcedureStep
    CompensatorDescription ContainerDescription ContributionDescription DecompositionDescription
    DerivationDescription DeviceSettingDescription DischargeDiagnosisDescription DisplacementReferenceLabel
    DoseReferenceDescription EntityDescription EntityName EquipmentFrameOfReferenceDescription
    FilterLookupTableDescription FixationDeviceDescription FractionGroupDescription FrameComments
    IdentifyingComments ImageComments ImagingServiceRequestComments Impressions InterpretationDiagnosisDescription
    InterpretationText LongDeviceDescription MakerNote MedicalAlerts MultienergyAcquisitionDescription
    MultiplexGroupLabel Occupation PatientComments PatientSetupPhotoDescription
    PatientTreatmentPreparationMethodDescription PatientTreatmentPreparationProcedureParameterDescription
    PerformedProcedureStepDescription PositionAcquisitionTemplateDescription PositionAcquisitionTemplateName
    PrescriptionDescription PriorTreatmentDoseDescription PyramidDescription PyramidLabel ROIDescription
    ROIGenerationDescription ROIObservationDescription ROIObservationLabel RTPlanDescription RTPlanName
    ReasonForOmissionDescription ReasonForRequestedProcedureCodeSequence ReasonForStudy
    ReasonForTheImagingServiceRequest ReasonForTheRequestedProcedure ReasonForVisit ReasonForVisitCodeSequence
    RequestAttributesSequence RequestedContrastAgent RequestedProcedureComments RequestedSeriesDescription
    RespiratoryMotionCompensationTechniqueDescription ResultsComments ScheduledProcedureStepDescription
    SeriesDescription ServiceEpisodeDescription SetupTechniqueDescription ShieldingDeviceDescription
    SpecimenDetailedDescription SpecimenShortDescription StructureSetDescription StructureSetName StudyComments
    StudyDescription TreatmentSites VisitComments WaveformFilterDescription
X +I: CassetteID DeviceDescription GantryID GeneratorID HardcopyCreationDeviceID LensMake LensModel LensSerialNumber
    LensSpecification PerformedStationAETitle PerformedStationGeographicLocationCodeSequence PerformedStationName
    PerformedStationNameCodeSequence PlateID ScheduledProcedureStepLocation ScheduledStationAETitle
    ScheduledStationGeographicLocationCodeSequence ScheduledStationName ScheduledStationNameCodeSequence
    ScheduledStudyLocation ScheduledStudyLocationAETitle SecondaryCaptureDeviceID SourceManufacturer StationAETitle
    TransducerIdentificationSequence UDISequence UniqueDeviceIdentifier XRayDetectorLabel
X +P: EthnicGroup PatientAge PatientSize PatientWeight PreMedication PregnancyStatus SmokingStatus SpecialNeeds
X +PC: Allergies PatientState
X +T: AdmittingDate AdmittingTime ApprovalStatusDateTime AssertionExpirationDateTime CalibrationDate CalibrationTime
    ContrastBolusStartTime ContrastBolusStopTime ContributionDateTime CreationDate CreationTime CurveDate CurveTime
    DateOfDocumentOrVerbalTransactionTrial DateOfLastCalibration DateOfSecondaryCapture DateTimeOfLastCalibration
    DischargeDate DischargeTime EthicsCommitteeApprovalEffectivenessEndDate
    EthicsCommitteeApprovalEffectivenessStartDate ExpectedCompletionDateTime FindingsGroupRecordingDateTrial
    FindingsGroupRecordingTimeTrial GPSDateStamp HL7DocumentEffectiveTime InstanceCoercionDateTime
    IntendedFractionStartTime InterpretationApprovalDate InterpretationApprovalTime InterpretationRecordedDate
    InterpretationRecordedTime InterpretationTranscriptionDate InterpretationTranscriptionTime
    InterventionDrugStartTime InterventionDrugStopTime IssueDateOfImagingServiceRequest
    IssueTimeOfImagingServiceRequest LastMenstrualDate ModifiedImageDate ModifiedImageTime ObservationDateTrial
    ObservationStartDateTime ObservationTimeTrial OverlayDate OverlayTime PerformedProcedureStepEndDate
    PerformedProcedureStepEndDateTime PerformedProcedureStepEndTime PerformedProcedureStepStartDate
    PerformedProcedureStepStartDateTime PerformedProcedureStepStartTime PresentationCreationDate
    PresentationCreationTime ProcedureStepCancellationDateTime ProductExpirationDateTime ROIDateTime
    ROIObservationDateTime RadiopharmaceuticalStartDateTime RadiopharmaceuticalStartTime
    RadiopharmaceuticalStopDateTime RadiopharmaceuticalStopTime SOPAuthorizationDateTime ScheduledAdmissionDate
    ScheduledAdmissionTime ScheduledDischargeDate ScheduledDischargeTime ScheduledProcedureStepEndDate
    ScheduledProcedureStepEndTime ScheduledProcedureStepExpirationDateTime
    ScheduledProcedureStepModificationDateTime ScheduledProcedureStepStartDate ScheduledProcedureStepStartDateTime
    ScheduledProcedureStepStartTime ScheduledStudyStartDate ScheduledStudyStartTime ScheduledStudyStopDate
    ScheduledStudyStopTime StudyArrivalDate StudyArrivalTime StudyCompletionDate StudyCompletionTime StudyReadDate
    StudyReadTime StudyVerifiedDate StudyVerifiedTime SubstanceAdministrationDateTime
    TimeOfDocumentCreationOrVerbalTransactionTrial TimeOfLastCalibration TimeOfSecondaryCapture
    TimezoneOffsetFromUTC
X/D: OperatorIdentificationSequence WaveformAnnotationSequence
X/D +C: AcquisitionDeviceProcessingDescription ProtocolName RTTreatmentApproachLabel TreatmentSite
X/D +I: DetectorID
X/D +T: DateOfLastDetectorCalibration EndAcquisitionDateTime FirstTreatmentDate InstanceCreationDate
    IntendedPhaseEndDate IntendedPhaseStartDate MostRecentTreatmentDate ObservationDateTime RTPlanDate RTPlanTime
    SeriesDate SeriesTime StartAcquisitionDateTime TimeOfLastDetectorCalibration TreatmentDate TreatmentTime
X/Z: AcquisitionContextSequence BarcodeValue ReferencedStudySequence ReviewerName
X/Z +C: LabelText RequestedProcedureDescription
X/Z +I: SourceSerialNumber TreatmentMachineName
X/Z +P: PatientSexNeutered
X/Z +T: AcquisitionDate AcquisitionTime
X/Z/D: InstitutionCodeSequence InstitutionName OperatorsName ReferencedPerformedProcedureStepSequence
X/Z/D +I: DeviceSerialNumber StationName
X/Z/D +T: AcquisitionDateTime InstanceCreationTime
X/Z/U*: ReferencedImageSequence SourceImageSequence
Z: AccessionNumber ClinicalTrialCoordinatingCenterName ClinicalTrialProtocolName ClinicalTrialSiteID
    ClinicalTrialSiteName ClinicalTrialTimePointID ConsultingPhysicianName DeviceAlternateIdentifier
    FillerOrderNumberImagingServiceRequest IssuerOfTheContainerIdentifierSequence
    IssuerOfTheSpecimenIdentifierSequence PatientBirthDate PatientName PlacerOrderNumberImagingServiceRequest
    ROIInterpreter RTAccessoryDeviceSlotID RTAccessoryHolderSlotID ReferringPhysicianName SourceOfPreviousValues
    SpecimenPreparationSequence StudyID VerifyingObserverIdentificationCodeSequence
Z +C: ConceptualVolumeCombinationDescription ConceptualVolumeDescription FractionationNotes PrescriptionNotes
    PrescriptionNotesSequence ROIName RTPhysicianIntentNarrative RadiationGenerationModeDescription
    ReasonForSuperseding TreatmentTechniqueNotes
Z +I: ManufacturerDeviceIdentifier
Z +P: PatientSex
Z +T: CalibrationDateTime ParticipationDateTime ReviewDate ReviewTime StructureSetDate StructureSetTime StudyDate
    StudyTime
Z/D: ContentCreatorName PatientID
Z/D +C: ContrastBolusAgent
Z/D +T: ContentDate ContentTime InstructionPerformedDateTime
"""
