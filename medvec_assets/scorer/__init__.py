"""The independent scorer of de-identification: plant identifiers in copies of real inputs, run the same code path, look for
them in everything written.

Belongs here: tokens and their spellings, planters per format, the search, the score of a partition and of a DICOM folder.
Does not belong here: any rule of de-identification. Nothing is imported of medvec_assets.deid nor of a modality's modules,
so that a mistake made there is not made here a second time; what runs is the stages, as they run for real data.
"""
