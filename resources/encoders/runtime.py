"""Where encoders compute: device, precision, threads, and the C allocator.

Belongs here: what holds for every encoder of a process. Does not belong here: anything about one network.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from resources.errors import ConfigError
from resources.settings import Settings


@dataclass(frozen=True)
class Placement:
    """Where one encoder computes: `device` cpu or cuda, `precision` fp32 or bf16."""

    device: str
    precision: str

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in bf16 where that is the precision; norms and sums stay fp32."""
        import torch

        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def device(settings: Settings) -> str:
    """`cuda` or `cpu`, without importing torch.

    `auto` is cuda when the NVIDIA driver shows a GPU to this process and the installed torch is a CUDA build; both are
    looked up as files, so every process of one machine plans the same precision, whether or not it has torch loaded.
    """
    if settings.device != "auto":
        return settings.device
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return "cuda" if not hidden and _gpu_present() and _torch_has_cuda() else "cpu"


def precision(settings: Settings) -> str:
    """`bf16` on CUDA, else `fp32` (bf16 is four times slower on a CPU). Part of every fingerprint; needs no torch."""
    return "bf16" if device(settings) == "cuda" else "fp32"


def place(settings: Settings) -> Placement:
    """The placement for this process, with threads and allocator set. ConfigError if it is cuda and torch has none.

    A GPU that is there and does not work fails here: falling back to the CPU would change the fingerprints unasked.
    """
    import torch

    placement = Placement(device(settings), precision(settings))
    if placement.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "encoders are to compute on cuda, and torch cannot use a GPU here",
            remedy="install a CUDA build of torch and a working driver, or set MEDVEC_DEVICE=cpu",
        )
    torch.set_num_threads(settings.torch_threads)
    if placement.device == "cpu":
        keep_memory()
    return placement


@cache
def keep_memory() -> bool:
    """Tells glibc to keep freed memory instead of returning it to the kernel. False where the C library is not glibc.

    Convolutions allocate and free tens of megabytes per layer; glibc maps and unmaps each, and the kernel zeroes the
    pages every time: 7,800 page faults an image before, none after. On 2 idle cores EfficientNet-Lite0 gains 1.6 times,
    MiniLM 1.1 times. One arena, because a thread's own arena returns memory whatever the other settings say.
    Equal to MALLOC_MMAP_MAX_=0 and its like before the process starts, without needing a launcher that sets them.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8  # malloc.h
    mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    options = ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 256 * 1024 * 1024), (m_arena_max, 1))
    return sum(mallopt(option, value) for option, value in options) == len(options)  # each answers 1 if it is accepted


def _gpu_present() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _torch_has_cuda() -> bool:
    spec = find_spec("torch")
    folders = (spec.submodule_search_locations or []) if spec else []
    return any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders)
