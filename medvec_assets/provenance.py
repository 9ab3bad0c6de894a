"""What every materialization says of itself beside its counts: which code, in which image.

Belongs here: identity of the running code. Does not belong here: the chain itself (resources.audit), fingerprints.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import version


@cache
def code_version() -> str:
    """The release, or what an image's build wrote into MEDVEC_CODE_VERSION (a commit). Never part of a fingerprint."""
    return os.environ.get("MEDVEC_CODE_VERSION") or f"medvec {version('medvec')}"


@cache
def image_digest() -> str:
    """The container image, as the deployment tells it; "-" outside one."""
    return os.environ.get("MEDVEC_IMAGE_DIGEST") or "-"
