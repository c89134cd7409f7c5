"""Ctrl-C at any point of a transaction ends it wholly: the next one of the same process need not wait."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter, Derivation, sqlite, writable_sqlite
from vitmae_search.catalog.deferred_signals import DeferredSignals

pytestmark = pytest.mark.sqlite_only("is about locks on SQLite's file")

POINTS = 50


class InterruptAtLine:
    """A trace function that sends this process a SIGINT when the main thread begins its n-th line."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.lines = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self

    def run(self, work: Callable[[], object]) -> KeyboardInterrupt | None:
        """Do the work, and return the interrupt with its traceback: with what the functions had in hand."""
        interrupt, before = None, sys.gettrace()
        gc.disable()  # Python drops what is raised in a callback of the garbage collection
        sys.settrace(self)
        try:
            work()
        except KeyboardInterrupt as error:
            interrupt = error
        finally:
            sys.settrace(before)
            gc.enable()
        sent = self.number is not None and self.lines >= self.number
        assert (interrupt is not None) == sent, f"the interrupt at line {self.number} was lost"
        return interrupt


def points_of(work: Callable[[], object]) -> Iterator[int]:
    """Numbers of lines all through `work`, whose first run fills caches; more of them near both ends."""
    work()
    trial = InterruptAtLine(None)
    trial.run(work)
    step = max(1, trial.lines // POINTS)
    yield from range(1, trial.lines, step)
    yield from range(2, min(step, POINTS), 2)
    yield from range(max(1, trial.lines - POINTS), trial.lines, 2)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """SIGINT raises, though a script may have started the tests in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)


@pytest.fixture
def rollback_journal(monkeypatch) -> None:
    """With a rollback journal a reader that keeps its lock keeps the writer from committing."""
    monkeypatch.setattr(writable_sqlite, "on_network_drive", lambda folder: True)


def test_a_batch_is_recorded_wholly_or_not_at_all(writer, space, make):
    numbers = count()

    def record() -> None:
        number = next(numbers)
        writer.record_batch(space, [make.item(f"/p/{number}", f"word {number}")])

    for point in points_of(record):
        photos = writer.count_photos()
        interrupt = InterruptAtLine(point).run(record)
        writer.add_root(f"/root/{point}", None)
        assert writer.count_photos() - photos in (0, 1)
        del interrupt
    assert writer.check() == []


@pytest.mark.usefixtures("rollback_journal")
@pytest.mark.parametrize(
    "read",
    [
        lambda catalog: catalog.photos(),
        lambda catalog: catalog.status(),
        lambda catalog: list(catalog.known_files("/p", 1)),
    ],
    ids=["photos", "status", "known_files"],
)
def test_a_reader_does_not_keep_its_lock(writer, space, make, folder, read):
    writer.record_batch(space, [make.item(f"/p/{number}", f"word {number}") for number in range(50)])
    with Catalog.open(folder) as catalog:
        for point in points_of(lambda: read(catalog)):
            interrupt = InterruptAtLine(point).run(lambda: read(catalog))
            writer.add_root(f"/root/{point}", None)
            read(catalog)
            del interrupt


def test_closing_frees_the_lock(folder):
    catalogs: list[CatalogWriter] = []

    def close() -> None:
        catalogs.append(CatalogWriter.open_writer(folder, wait=0.05))
        catalogs[-1].close()

    close()
    for point in points_of(catalogs[-1].close):
        catalogs.append(CatalogWriter.open_writer(folder, wait=0.05))
        interrupt = InterruptAtLine(point).run(catalogs[-1].close)
        catalogs[-1].close()
        with CatalogWriter.open_writer(folder, wait=0.05):
            pass
        del interrupt


def test_a_long_transaction_is_interrupted_at_its_next_statement(writer, space, make, monkeypatch):
    statements = []

    def project(features):
        statements.append(len(features))
        signal.raise_signal(signal.SIGINT)
        return features

    words = [make.item(f"/p/{number}", f"word {number}") for number in range(3000)]
    writer.record_batch(space, words)
    derivation = Derivation(make.digest("derived"), "projection", project, make.dimension, {}, {})
    with pytest.raises(KeyboardInterrupt):
        writer.derive_space(space, derivation)
    assert statements == [1000], "the first of three chunks"
    assert [one.space_id for one in writer.spaces()] == [space]


class TestDeferredSignals:
    def test_handlers_run_at_delivery_and_at_the_end(self, monkeypatch):
        received: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
        try:
            with DeferredSignals() as signals:
                signal.raise_signal(signal.SIGINT)
                assert received == []
                signals.deliver()
                assert received == [signal.SIGINT]
                signal.raise_signal(signal.SIGINT)
                assert received == [signal.SIGINT]
            assert received == [signal.SIGINT] * 2
            signal.raise_signal(signal.SIGINT)
            assert received == [signal.SIGINT] * 3
        finally:
            signal.signal(signal.SIGINT, before)

    def test_an_outer_block_goes_on_deferring(self):
        steps = []

        def interrupt() -> None:
            with DeferredSignals():
                with DeferredSignals():
                    signal.raise_signal(signal.SIGINT)
                steps.append("between")

        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert steps == ["between"]

    def test_an_ignored_signal_stays_ignored(self):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with DeferredSignals():
                assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)

    def test_other_threads_change_nothing(self):
        handlers = []

        def enter() -> None:
            with DeferredSignals():
                handlers.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert handlers == [signal.getsignal(signal.SIGINT)]
