"""Engines: errors are translated, and a device's memory is freed and used again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from vitmae_search.errors import DeviceError
from vitmae_search.vitmae import ViTConfig, ViTForImageClassification, convert_to_bf16
from vitmae_search.vitmae.inference import free_unused

CPU, STAND_IN = torch.device("cpu"), torch.device("meta")
ROWS = np.arange(46, dtype=np.uint8).reshape(23, 2)


@pytest.fixture(scope="module")
def engines(plugin_module: Callable[[str], ModuleType]) -> ModuleType:
    return plugin_module("engine")


class Sums(nn.Module):
    """(n, 2) uint8 to (n, 3) float32; `error` is raised in its place."""

    width = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.encoder = None
        self.error: Exception | None = None
        self.calls = 0

    def forward(self, batch: Tensor) -> Tensor:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return batch.float() @ self.weight


def make(engines: ModuleType, kind: str, network: nn.Module) -> Any:
    if kind == "plain":
        return engines.Engine(network, CPU, "fp32")
    return engines.CudaEngine(network, CPU, "fp32", 4)


KINDS = ("plain", "parts")


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size(engines, kind: str) -> None:
    engine = make(engines, kind, Sums())
    for size in (0, 1, 3, 4, 5, 23):
        found = engine.run(ROWS[:size])
        assert np.array_equal(found, ROWS[:size].astype(np.float32).sum(1, keepdims=True).repeat(3, 1))
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert engine.batch_size == (None if kind == "plain" else 16)


def test_a_long_run_compiles_and_a_short_one_does_not(engines, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[dict[str, Any]] = []

    def compile_network(network: nn.Module, **options: Any) -> nn.Module:
        compiled.append(options)
        return network

    monkeypatch.setattr(torch, "compile", compile_network)
    engine = make(engines, "parts", Sums())
    first = engine.run(ROWS)
    engine.run(ROWS)
    assert compiled == []
    engine.compile_after = 1e-9
    engine.run(ROWS[:1])
    assert compiled == [], "few rows never compile"
    for _ in range(3):
        assert np.array_equal(engine.run(ROWS), first)
    assert compiled == [{"mode": "reduce-overhead", "dynamic": False}]


class Wrong(nn.Module):
    def forward(self, batch: Tensor) -> Tensor:
        return -torch.arange(3.0).repeat(len(batch), 1)


class Failing(nn.Module):
    def forward(self, batch: Tensor) -> Tensor:
        raise RuntimeError("no C compiler\nand more")


@pytest.mark.parametrize(
    ("broken", "said"), [(Wrong(), "agree to a cosine of -"), (Failing(), "no C compiler")]
)
def test_what_does_not_compile_well_is_said_and_not_used(
    engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: nn.Module, said: str
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: broken)
    engine = make(engines, "parts", Sums())
    engine.compile_after = 0.0
    first = engine.run(ROWS)
    assert np.array_equal(engine.run(ROWS), first)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("torch.compile is not used, so encoding takes longer: ")
    assert said in message
    assert "\n" not in message


def test_a_device_that_computes_something_else_is_refused(engines) -> None:
    class ByPlace(Sums):
        def forward(self, batch: Tensor) -> Tensor:
            sums = super().forward(batch)
            return sums * torch.tensor([1.0, 1.0, 1.0 if self.calls % 2 else -1.0])

    engine = make(engines, "parts", ByPlace())
    with pytest.raises(DeviceError, match=r"cpu does not compute as the CPU does \(.*; choose --device cpu"):
        engine.run(ROWS[:4])


@pytest.mark.parametrize("fits", [3, 2, 1])
def test_where_memory_is_short_parts_are_halved_and_stay_so(engines, fits: int) -> None:
    class Small(Sums):
        def forward(self, batch: Tensor) -> Tensor:
            if len(batch) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(batch)

    network = Small()
    engine = make(engines, "parts", network)
    engine._compared = True  # on the CPU, where this would find no memory either
    assert np.array_equal(engine.run(ROWS)[:, 0], ROWS.sum(axis=1))
    assert engine._part == min(2, fits)


def lost() -> list[Exception]:
    messages = [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "Triton Error [CUDA]: unspecified launch failure",
    ]
    errors: list[Exception] = [RuntimeError(message) for message in messages]
    if hasattr(torch, "AcceleratorError"):
        errors.append(torch.AcceleratorError("GPU is lost"))
    return errors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", lost(), ids=lambda error: f"{type(error).__name__} {error}"[:50])
def test_a_lost_device_gives_the_same_sentence_at_every_call(engines, kind: str, error: Exception) -> None:
    network = Sums()
    engine = make(engines, kind, network)
    engine.run(ROWS)
    network.error = error
    with pytest.raises(DeviceError) as first:
        engine.run(ROWS)
    said = str(first.value)
    assert said.startswith("cpu failed in the middle of its work (")
    assert str(error).partition("\n")[0] in said
    assert said.endswith("what was finished before is kept: start again, or choose --device cpu")
    assert "\n" not in said
    network.error, calls = None, network.calls
    for call in (lambda: engine.run(ROWS), lambda: engine.run_alone(lambda: 1)):
        with pytest.raises(DeviceError) as later:
            call()
        assert str(later.value) == said
    assert network.calls == calls, "the device is left alone"
    engine.offload()
    engine.close()


def short_of_memory() -> list[Exception]:
    return [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", short_of_memory(), ids=lambda error: str(error)[:45])
def test_too_little_memory_is_a_memory_error_and_not_the_end(engines, kind: str, error: Exception) -> None:
    network = Sums()
    engine = make(engines, kind, network)
    network.error = error
    with pytest.raises(MemoryError):
        engine.run(ROWS)
    network.error = None
    assert len(engine.run(ROWS)) == len(ROWS)


def test_what_the_cpu_has_no_room_for(engines) -> None:
    engine = make(engines, "plain", Sums())
    with pytest.raises(MemoryError):
        engine.run_alone(lambda: torch.empty(1 << 55))


@pytest.mark.parametrize("kind", KINDS)
def test_a_programming_error_is_not_a_device_error(engines, kind: str) -> None:
    network = Sums()
    engine = make(engines, kind, network)
    network.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        engine.run(ROWS)
    network.error = None
    assert len(engine.run(ROWS)) == len(ROWS)


def test_freeing_memory_includes_tensors_of_old_errors(monkeypatch) -> None:
    """An error that a variable of a frame in its own traceback holds is freed by the collector alone."""
    held: list[weakref.ref[Tensor]] = []
    left: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.extend(one() is not None for one in held))

    def fail() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        kept = torch.OutOfMemoryError("CUDA out of memory.")
        raise kept

    with suppress(torch.OutOfMemoryError):
        fail()
    free_unused(torch.device("cuda"))
    assert left == [False]


# Where the weights are, with a stand-in for the device


@contextmanager
def stand_in() -> Iterator[FakeTensorMode]:
    """Tensors without values know where they are: those of the device "meta" do not meet the CPU's."""
    mode = FakeTensorMode()
    mode.allow_meta = True
    with pytest.MonkeyPatch.context() as patch, mode:
        patch.setattr(nn.Module, "to", moved)
        yield mode


def moved(module: nn.Module, device: torch.device | str) -> nn.Module:
    """`Module.to`, which cannot take stand-ins from one device to another."""
    for one in module.modules():
        for name, value in one._parameters.items():
            if value is not None:
                one._parameters[name] = nn.Parameter(value.detach().to(device), requires_grad=False)
        for name, value in one._buffers.items():
            if value is not None:
                one._buffers[name] = value.to(device)
    return module


def faked(mode: FakeTensorMode, module: nn.Module) -> nn.Module:
    """The module with stand-ins for its weights; they are on the CPU."""
    for one in module.modules():
        for name, value in one._parameters.items():
            if value is not None:
                one._parameters[name] = nn.Parameter(mode.from_tensor(value).detach(), requires_grad=False)
        for name, value in one._buffers.items():
            if value is not None:
                one._buffers[name] = mode.from_tensor(value)
    return module


def places(module: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


def test_offloading_leaves_no_weight_on_the_device(engines, open_model) -> None:
    opened = open_model()._embedder._engine._network
    with stand_in() as mode:
        network, other = faked(mode, opened), moved(nn.Linear(2, 2), STAND_IN)
        engine = engines.Engine(network, STAND_IN, "fp32")
        assert places(network) == {"meta"}
        for _ in range(2):
            engine.offload(other)
            assert places(network) | places(other) == {"cpu"}
        with pytest.raises(Exception, match="numpy"):
            engine.run(np.zeros((2, 32, 32, 3), np.uint8))  # a stand-in has no values to give back
        assert places(network) == {"meta"}
        assert places(other) == {"cpu"}, "its owner moves it"


def check_on_the_device(network: Any, shape: tuple[int, ...]) -> None:
    moved(network, STAND_IN)
    batch = torch.zeros(5, *shape, dtype=torch.uint8, device=STAND_IN)
    with torch.inference_mode():
        found = network(batch)
        assert (found.device, found.dtype) == (STAND_IN, torch.float32)
        assert found.shape == (5, network.width)
        moved(network.encoder.layernorm, CPU)
        with pytest.raises(RuntimeError, match="device"):
            network(batch)


OPTIONS = [
    {},
    {"views": "flip", "pooling": "cls"},
    {"views": "five", "layers": "0,2,last", "pooling": "mean+gem"},
    {"layers": "1,-1", "pooling": "cls+moments", "image_size": 48},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_of_an_embedder_happens_on_the_device(
    open_model, options: dict[str, Any], precision: str
) -> None:
    """From bytes to vectors; a weight that was left behind would be found, as the check itself tries."""
    embedder = open_model(**options)
    opened = embedder._embedder._engine._network
    with stand_in() as mode:
        network: Any = faked(mode, opened)
        if precision == "bf16":
            convert_to_bf16(network.encoder)
        check_on_the_device(network, embedder.shape)


@pytest.mark.parametrize("pooled", ["cls", "mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_of_a_classifier_happens_on_the_device(
    plugin_module, tiny_config, pooled: str, precision: str
) -> None:
    fields = {name: value for name, value in tiny_config.items() if not name.startswith("decoder")}
    model = ViTForImageClassification(ViTConfig(**fields, num_labels=7)).eval()
    opened = plugin_module("networks").Probabilities(model, torch.zeros(3, 256), pooled)
    with stand_in() as mode:
        network: Any = faked(mode, opened)
        if precision == "bf16":
            convert_to_bf16(network.encoder)
        check_on_the_device(network, (32, 32, 3))


def test_a_compiler_that_cannot_be_imported_is_said_and_not_used(
    engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(network: nn.Module, **options: Any) -> nn.Module:
        raise ImportError("no inductor here")

    monkeypatch.setattr(torch, "compile", refuse)
    engine = make(engines, "parts", Sums())
    first = engine.run(ROWS)
    engine.compile_after = 0.0
    assert np.array_equal(engine.run(ROWS), first)
    assert "no inductor here" in caplog.text
