"""Which device a run gets, and what is said where there is none."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import choose_device, multiplies_in_bf16

INSTEAD = "choose cpu or auto (--device, VITMAE_SEARCH_DEVICE)"
HERE = torch.cuda.is_available()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A torch that lists two CUDA devices and can compute on neither."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


def _ones_raise(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def ones(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "ones", ones)


def sentence(wanted: str) -> str:
    with pytest.raises(DeviceError) as raised:
        choose_device(wanted)
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_the_cpu_is_always_here() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.gpu
@pytest.mark.parametrize("word", ["auto", "cuda", "cuda:0"])
def test_a_gpu_that_works_is_taken(word: str, caplog: pytest.LogCaptureFixture) -> None:
    found = choose_device(word)
    assert found.type == "cuda"
    assert torch.ones(2, device=found).sum().item() == 2
    assert caplog.messages == []


@pytest.mark.parametrize("word", ["gpu", "", "CUDA", "cuda:", "cuda:-1", "cuda: 1", "cuda:1.0", "cpu:0"])
def test_other_words_are_no_device(word: str) -> None:
    assert sentence(word) == f"no device {word!r}; choose auto, cpu, cuda, cuda:N or mps"


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch is built with CUDA")
@pytest.mark.parametrize("word", ["cuda", "cuda:0", "cuda:300"])
def test_a_torch_without_cuda_says_so_and_where_there_is_one_with_it(word: str) -> None:
    said = sentence(word)
    assert said.startswith(f"{word}: this torch, {torch.__version__}, was built without CUDA; ")
    assert "https://pytorch.org/get-started/locally" in said
    assert said.endswith(f"or {INSTEAD}")


@pytest.mark.skipif(HERE, reason="this machine has one")
def test_no_device_gives_torchs_own_reason(listed: pytest.MonkeyPatch) -> None:
    listed.setattr(torch.cuda, "is_available", lambda: False)

    def init() -> None:
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040). Please update it."
        )

    listed.setattr(torch.cuda, "init", init)
    assert sentence("cuda") == (
        "cuda: no CUDA device can be used here (The NVIDIA driver on your system is too old "
        f"(found version 11040)); {INSTEAD}"
    )


@pytest.mark.parametrize("word", ["cuda:2", "cuda:99", "cuda:256"])  # torch.device makes 0 of 256
def test_a_number_too_high_counts_those_that_there_are(word: str, listed: pytest.MonkeyPatch) -> None:
    instead = "choose one of them, cpu or auto"
    assert sentence(word) == f"{word}: there are 2 CUDA devices, counted from 0; {instead}"
    listed.setattr(torch.cuda, "device_count", lambda: 1)
    assert sentence(word) == f"{word}: there is 1 CUDA device, cuda:0; {instead}"


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
def test_a_device_that_does_not_work_is_named_and_auto_goes_past_it(
    error: Exception, reason: str, listed: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _ones_raise(listed, error)
    said = sentence("cuda:1")
    assert said.startswith("cuda:1: ")
    assert reason in said
    with caplog.at_level(logging.WARNING):
        assert choose_device("auto") == torch.device("cpu")
    assert caplog.messages == [f"The CPU computes in its place: {sentence('cuda')}"]


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has one")
def test_no_apple_gpu() -> None:
    assert sentence("mps") == f"mps: no Apple GPU can be used here; {INSTEAD}"


def test_bf16_is_the_hardwares(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not multiplies_in_bf16(cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert multiplies_in_bf16(cpu)
    assert not multiplies_in_bf16(torch.device("mps"))
    for major, fast in ((7, False), (8, True), (9, True)):  # Turing converts; Ampere and Hopper multiply
        asked = []
        properties = type("Properties", (), {"major": major})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: asked.append(d) or properties)  # noqa: B023
        assert multiplies_in_bf16(gpu) is fast
        assert asked == [gpu], "the device that is meant, not the current one"
