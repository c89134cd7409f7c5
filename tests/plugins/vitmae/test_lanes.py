"""Lanes give every row its own answer, in order: on a device that is late, and where memory is short."""

from __future__ import annotations

import gc
import random
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

PART = 8
SIZES = (0, 1, 2, PART - 1, PART, PART + 1, 5 * PART + 3)
Work = Callable[[], object]


@pytest.fixture(scope="module")
def lanes(plugin_module: Callable[[str], ModuleType]) -> ModuleType:
    return plugin_module("lanes")


# Devices


class HostStream:
    """Everything happens at once, as with torch's own streams of a CPU."""

    pending: Collection[Work] = ()

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(shape, 77, dtype=dtype)

    on_device = on_host

    def launch(self, work: Work) -> None:
        work()

    def wait(self) -> None:
        pass

    def record(self, work: Work) -> Work:
        for _ in range(3):
            self.launch(work)
        self.wait()
        return work


class LateStream(HostStream):
    """What is launched happens when somebody waits for it; or, as `dice` will have it, a little earlier."""

    def __init__(self, dice: random.Random, others: list[LateStream]) -> None:
        self.pending: deque[Work] = deque()
        self.dice, self.all = dice, others
        others.append(self)

    def launch(self, work: Work) -> None:
        self.pending.append(work)
        self.run_some()

    def wait(self) -> None:
        self.run_some()
        while self.pending:
            self.step()

    def run_some(self) -> None:
        while self.dice.random() < 0.3:
            self.dice.choice(self.all).step()

    def step(self) -> None:
        if self.pending:
            try:
                self.pending.popleft()()
            except BaseException:
                self.pending.clear()  # what was to come after it does not
                raise


def streams_of(kind: str, count: int = 2) -> list[HostStream]:
    if kind == "host":
        return [HostStream() for _ in range(count)]
    dice, streams = random.Random(kind), list[LateStream]()
    return [LateStream(dice, streams) for _ in range(count)]


DEVICES = ("host", *(f"late {seed}" for seed in range(12)))


# A network: what a row is follows from its bytes


def numbered(count: int, start: int = 0) -> np.ndarray:
    """(count, 2) uint8: each row says its number."""
    return np.arange(start, start + count, dtype=">u2").view(np.uint8).reshape(-1, 2)


def forward(batch: Tensor) -> Tensor:
    number = batch[:, 0].float() * 256 + batch[:, 1].float()
    return torch.stack([number, -number, number * number], dim=1)


def expected(rows: np.ndarray) -> np.ndarray:
    return forward(torch.from_numpy(rows.copy())).numpy()


def make(lanes: ModuleType, kind: str, compute: Callable[[Tensor], Tensor] = forward, **other: Any) -> Any:
    return lanes.Lanes(
        compute,
        lambda rows: compute(torch.from_numpy(rows.copy())).numpy(),
        **{
            "part": PART,
            "width": 3,
            "streams": streams_of(kind, other.pop("count", 2)),
            "free_unused": lambda: None,
            **other,
        },
    )


# Order


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_row_has_its_own_answer_in_its_place(lanes, kind: str, count: int) -> None:
    opened = make(lanes, kind, count=count)
    for size in SIZES:
        rows = numbered(size, 300)
        found = opened.run(rows)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected(rows)), size
    sizes = random.Random(kind).choices(range(6 * PART), k=20)
    batches = [numbered(size, 1000 * number) for number, size in enumerate(sizes)]
    answers = [opened.run(rows) for rows in batches]
    for rows, found in zip(batches, answers, strict=True):
        assert np.array_equal(found, expected(rows)), "and no later call writes into it"


def read_too_early(lane: Any) -> np.ndarray:
    return lane._host_out[: lane._rows].numpy()


def filled_too_early(lane: Any) -> np.ndarray:
    lane._host_in.zero_()
    lane._stream.wait()
    return lane._host_out[: lane._rows].numpy()


@pytest.mark.parametrize("slip", [read_too_early, filled_too_early])
def test_a_lane_that_does_not_wait_fails(lanes, slip: Callable[[Any], np.ndarray]) -> None:
    """What the test above is worth: each of the late devices notices both."""
    for kind in DEVICES[1:]:
        opened = make(lanes, kind)
        opened.run(numbered(2 * PART))
        for lane in opened._lanes:
            lane.collect = partial(slip, lane)
        found = opened.run(rows := numbered(20 * PART, 500))
        assert not np.array_equal(found, expected(rows))


class NotingStream(HostStream):
    def __init__(self, name: int, notes: list[tuple[str, int]]) -> None:
        self.name, self.notes = name, notes

    def launch(self, work: Work) -> None:
        self.notes.append(("launch", self.name))
        work()

    def wait(self) -> None:
        self.notes.append(("wait", self.name))


def test_the_host_waits_only_for_the_lane_that_it_needs(lanes) -> None:
    notes: list[tuple[str, int]] = []
    opened = make(lanes, "host", streams=[NotingStream(number, notes) for number in range(2)])
    opened.run(numbered(PART))
    notes.clear()
    opened.run(numbered(5 * PART))
    short = [note for number, note in enumerate(notes) if number == 0 or note != notes[number - 1]]
    start, wait = "launch", "wait"
    assert short == [
        *((start, 0), (start, 1), (wait, 0), (start, 0), (wait, 1), (start, 1), (wait, 0), (start, 0)),
        *((wait, 1), (wait, 0)),
    ]


def test_what_was_recorded_takes_the_place_of_the_network(lanes) -> None:
    calls: list[int] = []

    def counting(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return forward(batch)

    class Graph(HostStream):
        """A replay reads and writes the memory that was there at the capture, and calls nobody."""

        def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            tensor = super().on_device(shape, dtype)
            setattr(self, "bytes" if dtype == torch.uint8 else "out", tensor)
            return tensor

        def record(self, work: Work) -> Work:
            work()
            return lambda: self.out.copy_(forward(self.bytes))

    opened = make(lanes, "host", counting, streams=[Graph(), Graph()])
    rows = numbered(5 * PART + 3)
    assert np.array_equal(opened.run(rows), expected(rows))
    made = len(calls)
    assert calls == [PART] * made
    assert np.array_equal(opened.run(rows), expected(rows))
    assert len(calls) == made
    assert np.array_equal(opened.run(rows[:1]), expected(rows[:1]))
    assert calls[made:] == [1], "so few rows are computed at once"


# Memory


class Device:
    """A network on a device with room for `room` rows; call number `fails` raises `error` whatever it has."""

    def __init__(self, room: int = 10**6, fails: int = -1, error: BaseException | None = None) -> None:
        self.room, self.fails, self.error, self.calls = room, fails, error, 0
        self.held: list[weakref.ref[Tensor]] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.calls += 1
        activations = batch.float()
        self.held.append(weakref.ref(activations))
        if self.error is not None and self.calls == self.fails:
            raise self.error
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(batch)


def full() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("kind", DEVICES[:4])
@pytest.mark.parametrize("room", [1, 2, 3, 5, 7])
def test_too_little_memory_halves_the_part_and_continues(lanes, kind: str, room: int, caplog) -> None:
    for size in SIZES[1:]:
        caplog.clear()
        device = Device(room)
        opened = make(lanes, kind, device)
        rows = numbered(size)
        assert np.array_equal(opened.run(rows), expected(rows))
        assert opened.part == (PART if size <= min(room, 1) else 1 << (room.bit_length() - 1))
        told = len(caplog.records)
        assert np.array_equal(opened.run(rows), expected(rows))
        assert len(caplog.records) == told, "it is remembered"


@pytest.mark.parametrize("kind", DEVICES[:4])
def test_memory_may_be_short_at_any_call(lanes, kind: str) -> None:
    rows = numbered(5 * PART + 3)
    for call in range(1, 16):
        device = Device(fails=call, error=full())
        opened = make(lanes, kind, device)
        assert np.array_equal(opened.run(rows), expected(rows)), call
        assert opened.part == (PART // 2 if device.calls >= call else PART)


def test_no_memory_for_one_row_is_a_memory_error_and_not_the_end(lanes) -> None:
    device = Device(room=0)
    opened = make(lanes, "host", device)
    rows = numbered(20)
    for size in (20, 1):
        with pytest.raises(MemoryError, match="single photo"):
            opened.run(rows[:size])
    device.room = 100
    assert np.array_equal(opened.run(rows), expected(rows))


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_lanes_are_freed_before_the_cache_is_emptied(lanes, no_collector, monkeypatch) -> None:
    """Without the garbage collector: neither a lane nor what the error's traceback holds is left."""
    alive: list[weakref.ref[Any]] = []
    device = Device(room=PART - 1)
    given_back: list[int] = []

    class Watched(HostStream):
        def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            tensor = super().on_device(shape, dtype)
            alive.append(weakref.ref(tensor))
            return tensor

        on_host = on_device

    def free_unused() -> None:
        assert not [one for one in (*alive, *device.held) if one() is not None]
        given_back.append(1)

    opened = make(lanes, "host", device, streams=[Watched(), Watched()], free_unused=free_unused)
    opened.run(numbered(2 * PART))
    assert given_back
    assert [one for one in alive if one() is not None]
    opened.drop()
    assert not [one for one in alive if one() is not None]


# Other errors


@pytest.mark.parametrize("kind", DEVICES[:4])
@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt(), RuntimeError("CUDA error: lost")])
def test_an_error_is_raised_and_the_lanes_stay_usable(lanes, kind: str, error: BaseException) -> None:
    rows = numbered(5 * PART + 3)
    for call in range(1, 12):
        device = Device(fails=call, error=error)
        opened = make(lanes, kind, device)
        with pytest.raises(type(error)) as raised:
            opened.run(rows)
        assert raised.value is error, call
        assert not any(stream.pending for stream in opened._streams), "nothing goes on behind its back"
        assert np.array_equal(opened.run(rows), expected(rows))
        assert opened.part == PART


def test_lanes_of_a_device_that_was_lost_are_never_freed(lanes) -> None:
    """Freeing pinned memory asks the device; an error in a destructor would end the process."""

    class Lost(HostStream):
        lost = False

        def wait(self) -> None:
            if self.lost:
                raise RuntimeError("CUDA error: device-side assert triggered")

    streams = [Lost(), Lost()]
    opened = make(lanes, "host", streams=streams)
    opened.run(numbered(5 * PART))
    kept = [weakref.ref(lane) for lane in opened._lanes]
    streams[1].lost = True
    with pytest.raises(RuntimeError, match="assert"):
        opened.run(numbered(5 * PART))
    assert [lane() is None for lane in kept] == [True, False]


def test_rows_of_another_shape_say_so_and_harm_nothing(lanes) -> None:
    opened = make(lanes, "host")
    opened.run(rows := numbered(2 * PART))
    with pytest.raises(ValueError, match="broadcast"):
        opened.run(np.zeros((PART, 5), np.uint8))
    assert np.array_equal(opened.run(rows), expected(rows))


# The size of a part


@pytest.mark.parametrize(
    ("tokens", "width", "part"),
    [(197, 768, 128), (197, 1024, 128), (257, 1280, 64), (197, 384, 256), (65, 192, 1024), (10**6, 10**6, 1)],
)
def test_a_part_fills_the_device_whatever_the_model(lanes, tokens: int, width: int, part: int) -> None:
    assert lanes.rows_per_part(tokens, width) == part
