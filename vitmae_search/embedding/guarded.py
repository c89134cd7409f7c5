"""What the guards of embedders and of classifiers have in common."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from numpy.typing import NDArray

from vitmae_search.embedding.fingerprint import canonical_json
from vitmae_search.embedding.guard_prepare import GuardedPrepare, blame, guard_prepare
from vitmae_search.embedding.plugin import Batching, Classifier, Embedder, PluginInfo, Resting
from vitmae_search.errors import DeviceError, PluginBroken

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(device: str, precision: str) -> None:
    """Raise `DeviceError` for a device or a precision that there is no such word for."""
    if not _DEVICE.fullmatch(device):
        raise DeviceError(f"no device {device!r}; choose auto, cpu, cuda, cuda:N or mps")
    if precision not in ("auto", "fp32", "bf16"):
        raise DeviceError(f"no precision {precision!r}; choose auto, fp32 or bf16")


def positive(value: object) -> bool:
    """Whether it is a whole number above 0, and no bool."""
    return type(value) is int and value > 0


class Guarded:
    """An open model of a plugin: the attributes that all have, checked, and its end.

    `kind` is what it is called in messages. `shape` and `dtype` are those of what `prepare` gives.
    `batch_size` is `Batching`'s, None where the plugin does not say.
    """

    def __init__(self, info: PluginInfo, opened: Embedder | Classifier, kind: str) -> None:
        self.info, self._opened, self._kind = info, opened, kind
        self._lock, self._closed = threading.Lock(), False
        self._resting, self._used_at = False, time.monotonic()
        with blame(info.name, f"reading the {kind}'s attributes"):
            model, identity, provenance = opened.model, opened.identity, opened.provenance
            input_size, prepare = opened.input_size, opened.prepare
            batch_size = opened.batch_size if isinstance(opened, Batching) else None
        self.model: str = self._expect(type(model) is str and model != "", "model", model, "text")
        self.identity: dict[str, Any] = self._plain("identity", identity)
        self.provenance: dict[str, Any] = self._plain("provenance", provenance)
        fits = input_size is None or positive(input_size)
        self.input_size: int | None = self._expect(fits, "input_size", input_size, "None or an int above 0")
        fits = batch_size is None or positive(batch_size)
        self.batch_size: int | None = self._expect(fits, "batch_size", batch_size, "an int above 0")
        self.prepare: GuardedPrepare = guard_prepare(info.name, prepare)
        self.shape, self.dtype = self.prepare.shape, self.prepare.dtype

    @property
    def resting(self) -> bool:
        """Whether it gave its device's memory back, and nobody has asked it anything since."""
        return self._resting

    def rest(self, *, after: float = 0.0) -> bool:
        """Give the device's memory back until the next call, where the plugin can (`contract.Resting`).

        Only if nothing was asked of it for `after` seconds, and nothing is at work; it never waits. Returns
        whether it did, which a second time it does not. Raises `PluginBroken`.
        """
        if not isinstance(self._opened, Resting) or not self._lock.acquire(blocking=False):
            return False
        try:
            idle = time.monotonic() - self._used_at >= after
            if self._closed or self._resting or not idle:
                return False
            with blame(self.info.name, "rest"):
                self._opened.rest()
            self._resting = True
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give the model's memory back. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                with blame(self.info.name, "close"):
                    self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_batch(self, batch: NDArray[Any]) -> None:
        if batch.shape[1:] != self.shape or batch.dtype != self.dtype:
            raise ValueError(f"the batch is {batch.dtype} {batch.shape}, not {self.dtype} (N, *{self.shape})")

    @contextmanager
    def _at_work(self, doing: str) -> Iterator[None]:
        """One call of the plugin: alone, of an open model, and blamed on the plugin."""
        with self._lock:
            if self._closed:
                raise ValueError(f"the {self._kind} of plugin {self.info.name!r} is closed")
            self._resting = False
            try:
                with blame(self.info.name, doing):
                    yield
            finally:
                self._used_at = time.monotonic()

    def _expect(self, holds: bool, name: str, value: Any, rule: str) -> Any:
        if not holds:
            raise PluginBroken(self.info.name, f"{name}={value!r} must be {rule}")
        return value

    def _plain(self, name: str, value: object) -> dict[str, Any]:
        self._expect(isinstance(value, Mapping), name, value, "a dict")
        try:
            plain: dict[str, Any] = json.loads(canonical_json(value))
        except (TypeError, ValueError) as error:
            raise PluginBroken(self.info.name, f"{name} must be plain JSON: {error}") from error
        return plain
