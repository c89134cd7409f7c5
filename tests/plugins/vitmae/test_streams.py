"""A stream of a CUDA device: its graph repeats what was record, and where there can be none, it goes on.

On a CPU a few lines stand in for torch's part, as torch's own source has it, so that the same tests run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

FORBIDDEN = "operation not permitted when stream is capturing"
WARM_UPS = 3


class StandIn:
    """`torch.cuda` without a device: a capture runs its work, and ending one that failed raises once more.

    The allocator then still takes it for underway, as in torch before 2.12.
    """

    def __init__(self) -> None:
        self.capturing = False
        self.underway: set[tuple[int, int]] = set()

    def synchronize(self) -> None:
        if self.capturing:
            raise RuntimeError(f"CUDA error: {FORBIDDEN}\nCUDA kernel errors might be ...")

    def empty_cache(self) -> None:
        assert not self.underway

    def end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(pool)

    @contextmanager
    def graph(
        self, graph: Any, pool: tuple[int, int], stream: Any, *, capture_error_mode: str
    ) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        self.empty_cache()
        self.underway.add(pool)
        self.capturing, failed = True, True
        try:
            yield
            failed = False
        finally:
            self.capturing = False
            if failed:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            self.underway.remove(pool)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def stream(
    request: pytest.FixtureRequest,
    plugin_module: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    if request.param == "cpu":
        stand_in, pools = StandIn(), iter(range(1, 100))
        only = SimpleNamespace(synchronize=lambda: None, device_index=0)
        monkeypatch.setattr(torch.cuda, "Stream", lambda _: only)
        monkeypatch.setattr(torch.cuda, "stream", nullcontext)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
        monkeypatch.setattr(torch.cuda, "synchronize", stand_in.synchronize)
        monkeypatch.setattr(torch.cuda, "graph", stand_in.graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, next(pools)))
        monkeypatch.setattr(torch.cuda, "empty_cache", stand_in.empty_cache)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", stand_in.end, raising=False)
    streams = plugin_module("streams")
    monkeypatch.setattr(streams.CudaStream, "graphs", True)
    return streams.CudaStream(torch.device(request.param))


def test_what_was_recorded_is_repeated(stream, caplog) -> None:
    out, one = stream.on_device((4,), torch.float32), stream.on_device((4,), torch.float32)
    stream.launch(lambda: out.zero_())
    stream.launch(lambda: one.fill_(1.0))

    def work() -> None:
        out.add_(one * 2)

    stream.launch(work)
    stream.wait()
    again = stream.record(work)
    assert again is not work
    assert caplog.records == []
    if out.device.type == "cuda":  # the stand-in repeats nothing
        before = torch.cuda.current_stream()
        warmed = 2.0 + 2.0 * WARM_UPS
        assert out.tolist() == [warmed] * 4, "a capture does nothing yet"
        for _ in range(3):
            stream.launch(again)
        stream.wait()
        assert out.tolist() == [warmed + 6.0] * 4
        assert torch.cuda.current_stream() == before


def test_pinned_memory_goes_there_and_back(stream) -> None:
    if stream._device.type == "cpu":
        pytest.skip("torch pins memory for a GPU only")
    there, back = (stream.on_host((1 << 20,), torch.uint8) for _ in range(2))
    assert there.is_pinned()
    device = stream.on_device((1 << 20,), torch.uint8)
    there.numpy()[:] = 7
    stream.launch(lambda: device.copy_(there, non_blocking=True))
    stream.launch(lambda: device.add_(1))
    stream.launch(lambda: back.copy_(device, non_blocking=True))
    stream.wait()
    assert (back.numpy() == 8).all()


def test_work_that_cannot_be_captured_runs_uncaptured_and_is_logged_once(stream, caplog) -> None:
    out = stream.on_device((4,), torch.float32)
    stream.launch(lambda: out.zero_())

    def work() -> None:
        out.add_(1)
        torch.cuda.synchronize()

    stream.launch(work)
    stream.wait()
    for _ in range(2):
        assert stream.record(work) is work
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "\n" not in caplog.text.rstrip()
    stream.launch(lambda: out.fill_(5.0))
    stream.launch(work)
    stream.wait()
    assert out.tolist() == [6.0] * 4

    torch.cuda.empty_cache()  # which torch refuses where it takes a capture for underway

    def fine() -> None:
        out.add_(1)

    assert stream.record(fine) is fine, "what cannot be done is not tried again"


@pytest.mark.parametrize("when", ["warming up", "capturing"])
def test_memory_that_is_short_while_recording_is_told_as_that(stream, when: str, caplog) -> None:
    out = stream.on_device((4,), torch.float32)
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        out.add_(1)
        if calls > WARM_UPS or when == "warming up":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    for _ in range(2):
        calls = 0
        with pytest.raises(torch.OutOfMemoryError):
            stream.record(work)
        torch.cuda.empty_cache()
    assert caplog.records == []
    stream.launch(lambda: out.fill_(5.0))
    stream.wait()
    assert out.tolist() == [5.0] * 4

    def fine() -> None:
        out.add_(1)

    assert stream.record(fine) is not fine, "the next one can be"
