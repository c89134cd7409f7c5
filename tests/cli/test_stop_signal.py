"""The first signal requests a stop, the second one interrupts."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from vitmae_search.cli.stop_signal import StopOnSignal


class Interrupted(io.RawIOBase):
    """A stderr during whose first write Ctrl-C comes."""

    def __init__(self) -> None:
        self.text = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        first, self.text = not self.text, self.text + bytes(data)
        if first:
            signal.raise_signal(signal.SIGINT)
        return len(data)


def test_the_first_signal_requests_and_the_second_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopOnSignal("stopping after this batch") as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err.startswith("stopping after this batch; press Ctrl-C again")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_while_progress_is_printed_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Interrupted()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(raw), write_through=True))
    with StopOnSignal("stopping after this batch") as stop:
        print("indexing: 3 of 9 photos", file=sys.stderr, flush=True)
        assert stop.requested()
    assert raw.text == b"indexing: 3 of 9 photos\n"
