"""Which device is chosen, and what the errors say."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import choose_device, multiplies_in_bf16

INSTEAD = "choose cpu or auto (--device, VITMAE_SEARCH_DEVICE)"
CUDA_AVAILABLE = torch.cuda.is_available()


@pytest.fixture
def unusable_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A torch that lists two CUDA devices and can compute on neither."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


def _ones_raise(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def ones(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "ones", ones)


def error_message(name: str) -> str:
    with pytest.raises(DeviceError) as raised:
        choose_device(name)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_the_cpu_is_always_available() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_working_gpu_is_chosen(name: str, caplog: pytest.LogCaptureFixture) -> None:
    found = choose_device(name)
    assert found.type == "cuda"
    assert torch.ones(2, device=found).sum().item() == 2
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["gpu", "", "CUDA", "cuda:", "cuda:-1", "cuda: 1", "cuda:1.0", "cpu:0"])
def test_unknown_device_names_are_refused(name: str) -> None:
    assert error_message(name) == f"no device {name!r}; choose auto, cpu, cuda, cuda:N or mps"


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch is built with CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:300"])
def test_torch_without_cuda_is_reported_with_where_to_get_one(name: str) -> None:
    message = error_message(name)
    assert message.startswith(f"{name}: this torch, {torch.__version__}, was built without CUDA; ")
    assert "https://pytorch.org/get-started/locally" in message
    assert message.endswith(f"or {INSTEAD}")


@pytest.mark.skipif(CUDA_AVAILABLE, reason="this machine has one")
def test_the_error_quotes_torch_s_reason(unusable_gpus: pytest.MonkeyPatch) -> None:
    unusable_gpus.setattr(torch.cuda, "is_available", lambda: False)

    def init() -> None:
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040). Please update it."
        )

    unusable_gpus.setattr(torch.cuda, "init", init)
    assert error_message("cuda") == (
        "cuda: no CUDA device can be used here (The NVIDIA driver on your system is too old "
        f"(found version 11040)); {INSTEAD}"
    )


@pytest.mark.parametrize("name", ["cuda:2", "cuda:99", "cuda:256"])  # torch.device makes 0 of 256
def test_a_device_number_out_of_range_is_refused(name: str, unusable_gpus: pytest.MonkeyPatch) -> None:
    instead = "choose one of them, cpu or auto"
    assert error_message(name) == f"{name}: there are 2 CUDA devices, counted from 0; {instead}"
    unusable_gpus.setattr(torch.cuda, "device_count", lambda: 1)
    assert error_message(name) == f"{name}: there is 1 CUDA device, cuda:0; {instead}"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), "its memory is full"),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nSearch"),
            f"torch {torch.__version__} has no code for a GPU of its age",
        ),
        (
            RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be …"),
            "the GPU does not work (CUDA error: unspecified launch failure)",
        ),
    ],
)
def test_a_broken_gpu_is_refused_and_auto_skips_it(
    error: Exception, reason: str, unusable_gpus: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _ones_raise(unusable_gpus, error)
    message = error_message("cuda:1")
    assert message.startswith("cuda:1: ")
    assert reason in message
    with caplog.at_level(logging.WARNING):
        assert choose_device("auto") == torch.device("cpu")
    assert caplog.messages == [f"The CPU computes in its place: {error_message('cuda')}"]


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has one")
def test_no_apple_gpu() -> None:
    assert error_message("mps") == f"mps: no Apple GPU can be used here; {INSTEAD}"


def test_bf16_support_by_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not multiplies_in_bf16(cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert multiplies_in_bf16(cpu)
    assert not multiplies_in_bf16(torch.device("mps"))
    for major, fast in ((7, False), (8, True), (9, True)):  # Turing converts; Ampere and Hopper multiply
        devices = []
        properties = type("Properties", (), {"major": major})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: devices.append(d) or properties)  # noqa: B023
        assert multiplies_in_bf16(gpu) is fast
        assert devices == [gpu], "the device that is meant, not the current one"
