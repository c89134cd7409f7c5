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
from vitmae_search.vitmae import ViTConfig, ViTForImageClassification, prepack
from vitmae_search.vitmae.fused import _thread as fusing_thread

CPU, STAND_IN = torch.device("cpu"), torch.device("meta")
ROWS = np.arange(46, dtype=np.uint8).reshape(23, 2)


@pytest.fixture(scope="module")
def engines(plugin_module: Callable[[str], ModuleType]) -> ModuleType:
    return plugin_module("engine")


class HostStream:
    """Everything happens at once."""

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(shape, 77, dtype=dtype)

    on_device = on_host

    def launch(self, work: Callable[[], object]) -> None:
        work()

    def wait(self) -> None:
        pass

    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        return work


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
    return engines.CudaEngine(network, CPU, "fp32", 4, [HostStream(), HostStream()])


KINDS = ("plain", "lanes")


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size(engines, kind: str) -> None:
    engine = make(engines, kind, Sums())
    for size in (0, 1, 3, 4, 5, 23):
        found = engine.run(ROWS[:size])
        assert np.array_equal(found, ROWS[:size].astype(np.float32).sum(1, keepdims=True).repeat(3, 1))
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert engine.batch_size == (None if kind == "plain" else 16)


class Asking(Sums):
    """Notes in which calls `fused` functions would be compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: list[bool] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.compiled.append(getattr(fusing_thread, "on", False))
        return super().forward(batch)


def test_a_long_run_compiles_and_a_short_one_does_not(engines) -> None:
    network = Asking()
    engine = make(engines, "lanes", network)
    first = engine.run(ROWS)
    assert network.compiled
    assert not any(network.compiled)
    engine.fuse_after = 1e-9
    network.compiled.clear()
    assert np.array_equal(engine.run(ROWS), first)
    assert network.compiled
    assert all(network.compiled)


def test_few_rows_never_compile(engines) -> None:
    network = Asking()
    engine = engines.CudaEngine(network, CPU, "fp32", 8, [HostStream(), HostStream()])
    engine.fuse_after = 0.0
    engine.run(ROWS[:1])
    assert network.compiled == [False]


def test_few_rows_never_use_cudnn_attention(engines) -> None:
    """Its attention plans for every number of rows and in every thread; lanes have one number, and may."""
    planned: list[bool] = []

    class Attending(Sums):
        def forward(self, batch: Tensor) -> Tensor:
            planned.append(torch.backends.cuda.cudnn_sdp_enabled())
            return super().forward(batch)

    engine = engines.CudaEngine(Attending(), CPU, "fp32", 8, [HostStream(), HostStream()])
    assert torch.backends.cuda.cudnn_sdp_enabled()
    engine.run(ROWS[:1])
    engine.run(ROWS)
    assert planned[0] is False
    assert planned[1:] == [True] * 3
    assert torch.backends.cuda.cudnn_sdp_enabled()


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
    assert kind == "plain" or engine._lanes._lanes == []
    network.error, calls = None, network.calls
    for call in (lambda: engine.run(ROWS), lambda: engine.run_alone(lambda: 1)):
        with pytest.raises(DeviceError) as later:
            call()
        assert str(later.value) == said
    assert network.calls == calls, "the device is left alone"
    engine.rest()
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


def test_other_work_gets_the_memory_of_the_lanes(engines) -> None:
    engine = make(engines, "lanes", Sums())
    engine.run(ROWS)
    lanes = [weakref.ref(lane) for lane in engine._lanes._lanes]
    assert len(lanes) == 2

    def work() -> str:
        if any(lane() is not None for lane in lanes):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    assert engine.run_alone(work) == "done"
    assert len(engine.run(ROWS)) == len(ROWS)
    with pytest.raises(MemoryError):
        engine.run_alone(lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")))


def test_offloading_frees_the_lanes_and_resets_their_size(engines) -> None:
    engine = make(engines, "lanes", Sums())
    before = engine.run(ROWS)
    lanes = [weakref.ref(lane) for lane in engine._lanes._lanes]
    engine._lanes.part = 1
    engine.rest()
    assert [lane() for lane in lanes] == [None, None]
    assert engine._lanes.part == 4
    assert np.array_equal(engine.run(ROWS), before)


def test_freeing_memory_includes_tensors_of_old_errors(plugin_module, monkeypatch) -> None:
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
    plugin_module("devices").free_unused(torch.device("cuda"))
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
            engine.rest(other)
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
            prepack(network.encoder, STAND_IN)
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
            prepack(network.encoder, STAND_IN)
        check_on_the_device(network, (32, 32, 3))
