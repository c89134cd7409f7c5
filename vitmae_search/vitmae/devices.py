"""Choose the device that a model runs on, and find out whether it multiplies in bf16."""

from __future__ import annotations

import logging
import re
import warnings

import torch

from vitmae_search.errors import DeviceError

log = logging.getLogger(__name__)

_CUDA = re.compile(r"cuda(?::(\d+))?")
_BF16_CHECKS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
"""Private functions of `torch.cpu`, which a version of torch may not have."""
_WITHOUT_BF16 = ("DEFAULT", "AVX2")
_ALTERNATIVE = "choose cpu or auto (--device, VITMAE_SEARCH_DEVICE)"


def choose_device(name: str) -> torch.device:
    """Find the device of a name, and check that it works.

    A GPU computes one sum, because torch also lists those that are too old for it, full, or lost. "auto" is
    CUDA, else mps, else the CPU; it passes over a GPU that does not work, and logs why.

    Args:
        name: auto, cpu, cuda, cuda:N or mps.

    Raises:
        DeviceError: There is no such device, or it does not work; one sentence says why and what to do.
    """
    if name == "auto":
        return _best_device()
    if name == "cpu":
        return torch.device("cpu")
    cuda = _CUDA.fullmatch(name)
    if cuda is None and name != "mps":
        raise DeviceError(f"no device {name!r}; choose auto, cpu, cuda, cuda:N or mps")
    with warnings.catch_warnings():  # torch warns of an old driver or GPU, which our own error names
        warnings.simplefilter("ignore", UserWarning)
        problem = _mps_problem() if cuda is None else _cuda_problem(int(cuda[1] or 0))
        if problem is None:
            problem = _computing_problem(torch.device(name))
    if problem is not None:
        raise DeviceError(f"{name}: {problem}")
    return torch.device(name)


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16: a GPU since Ampere, a CPU with AMX or AVX512-BF16.

    Others convert to fp32 and back, and are slower in bf16 than in fp32; so is a CPU that torch was told to
    use as one with AVX2 (`ATEN_CPU_CAPABILITY`).
    """
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_properties(device).major >= 8
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16:
        return False
    checks = (getattr(torch.cpu, name, None) for name in _BF16_CHECKS)
    return any(check is not None and check() for check in checks)


def _best_device() -> torch.device:
    """The first GPU that works, else the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        backends = (("cuda", torch.cuda), ("mps", torch.backends.mps))
        available = [name for name, backend in backends if backend.is_available()]
    for name in available:
        try:
            return choose_device(name)
        except DeviceError as error:
            log.warning("The CPU computes in its place: %s", error)
    return torch.device("cpu")


def _mps_problem() -> str | None:
    """Why mps cannot be used; None where it can."""
    return None if torch.backends.mps.is_available() else f"no Apple GPU can be used here; {_ALTERNATIVE}"


def _cuda_problem(index: int) -> str | None:
    """Why there is no CUDA device of this number; None where there is."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        get = "see https://pytorch.org/get-started/locally for one with it"
        return f"this torch, {torch.__version__}, was built without CUDA; {get}, or {_ALTERNATIVE}"
    if not torch.cuda.is_available():
        return f"no CUDA device can be used here{_cuda_init_error()}; {_ALTERNATIVE}"
    count = torch.cuda.device_count()
    if index >= count:
        there = "is 1 CUDA device, cuda:0" if count == 1 else f"are {count} CUDA devices, counted from 0"
        return f"there {there}; choose one of them, cpu or auto"
    return None


def _cuda_init_error() -> str:
    """What torch says when it cannot start CUDA (no driver, an old one, hidden devices), in parentheses."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f" ({_first_sentence(error)})"
    return ""


def _computing_problem(device: torch.device) -> str | None:
    """Why a device that torch lists cannot add two numbers; None where it can."""
    try:
        torch.ones(1, device=device).add_(1).item()  # `item` waits for the result, and so raises its errors
    except torch.OutOfMemoryError:
        return f"its memory is full; end what else uses it, or {_ALTERNATIVE}"
    except (RuntimeError, AssertionError) as error:
        message = _first_sentence(error)
        if "no kernel image" in message:
            message = f"torch {torch.__version__} has no code for a GPU of its age"
        return f"the GPU does not work ({message}); {_ALTERNATIVE}"
    return None


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".:")
