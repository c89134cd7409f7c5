"""Which device a model runs on, and whether that multiplies in bf16."""

from __future__ import annotations

import logging
import re
import warnings

import torch

from vitmae_search.errors import DeviceError

log = logging.getLogger(__name__)

_CUDA = re.compile(r"cuda(?::(\d+))?")
_BF16_CPUS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
"""Names that torch does not promise to keep."""
_INSTEAD = "choose cpu or auto (--device, VITMAE_SEARCH_DEVICE)"


def choose_device(wanted: str) -> torch.device:
    """The device that `wanted` names: auto, cpu, cuda, cuda:N or mps. "auto" is CUDA, else mps, else the CPU.

    A GPU is tried on one number, for torch lists those as well that are too old for it, or full, or lost.
    "auto" passes over such a one and logs why. Raises `DeviceError` for any other device that is not here:
    one sentence of what is missing and what to do.
    """
    if wanted == "auto":
        return _best()
    if wanted == "cpu":
        return torch.device("cpu")
    cuda = _CUDA.fullmatch(wanted)
    if cuda is None and wanted != "mps":
        raise DeviceError(f"no device {wanted!r}; choose auto, cpu, cuda, cuda:N or mps")
    with warnings.catch_warnings():  # torch says what is wrong with a driver or a GPU: we do, once
        warnings.simplefilter("ignore", UserWarning)
        missing = _no_mps() if cuda is None else _no_cuda(int(cuda[1] or 0))
        if missing is None:
            missing = _trouble(torch.device(wanted))
    if missing is not None:
        raise DeviceError(f"{wanted}: {missing}")
    return torch.device(wanted)


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is what it multiplies in: a GPU since Ampere, a CPU with AMX or AVX512-BF16.

    Others convert to fp32 and back, and are the slower for it.
    """
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_properties(device).major >= 8
    asked = (getattr(torch.cpu, name, None) for name in _BF16_CPUS)
    return device.type == "cpu" and any(ask is not None and ask() for ask in asked)


def _best() -> torch.device:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        here = [
            name for name, one in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if one.is_available()
        ]
    for name in here:
        try:
            return choose_device(name)
        except DeviceError as error:
            log.warning("The CPU computes in its place: %s", error)
    return torch.device("cpu")


def _no_mps() -> str | None:
    return None if torch.backends.mps.is_available() else f"no Apple GPU can be used here; {_INSTEAD}"


def _no_cuda(index: int) -> str | None:
    """Why there is no CUDA device of this number; None where there is."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        get = "see https://pytorch.org/get-started/locally for one with it"
        return f"this torch, {torch.__version__}, was built without CUDA; {get}, or {_INSTEAD}"
    if not torch.cuda.is_available():
        return f"no CUDA device can be used here{_reason()}; {_INSTEAD}"
    count = torch.cuda.device_count()
    if index >= count:
        there = "is 1 CUDA device, cuda:0" if count == 1 else f"are {count} CUDA devices, counted from 0"
        return f"there {there}; choose one of them, cpu or auto"
    return None


def _reason() -> str:
    """What torch has to say of it: no driver, one that is too old, or hidden devices."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f" ({_first_sentence(error)})"
    return ""


def _trouble(device: torch.device) -> str | None:
    """Why a device that is listed cannot add two numbers; None where it can."""
    try:
        torch.ones(1, device=device).add_(1).item()  # waits for the device, and so meets its errors
    except torch.OutOfMemoryError:
        return f"its memory is full; end what else uses it, or {_INSTEAD}"
    except (RuntimeError, AssertionError) as error:
        said = _first_sentence(error)
        if "no kernel image" in said:
            said = f"torch {torch.__version__} has no code for a GPU of its age"
        return f"the GPU does not work ({said}); {_INSTEAD}"
    return None


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".:")
