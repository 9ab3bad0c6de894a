"""A code location for tests that start Dagster's own processes: tcia_catalog with an encoder that needs no weights.

Each run is a process, so importing this in it is what installs the encoder. The lake, the index and every stage are real.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.counting_encoder import CountingEncoders
from helpers.pipeline import small_spec
from medvec_assets import pictures
from medvec_assets.definitions import build_defs
from medvec_assets.runtime import Runtime

_patch = pytest.MonkeyPatch()
CountingEncoders().install(_patch)
_patch.setattr(pictures, "of_partition", lambda *_: {})  # a second of matplotlib that nobody looks at here
defs = build_defs([small_spec()], Runtime())
