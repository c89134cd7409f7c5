"""Norms and sums compiled to one GPU kernel each, which reads and writes every tensor once."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_MAX_SHAPES = 64
"""Sets of shapes for which torch compiles a function. Several models soon reach torch's default, 8."""

_thread = threading.local()


@contextmanager
def fusing() -> Iterator[None]:
    """Compile the `fused` functions that this thread calls inside the block.

    The first call with new shapes takes seconds, or half a minute if nothing was compiled before, so this
    is for shapes that recur.
    """
    before = getattr(_thread, "on", False)
    _thread.on = True
    try:
        yield
    finally:
        _thread.on = before


class fused(Generic[P, R]):  # noqa: N801  (a decorator)
    """Decorator: inside `fusing()`, compile the function for tensors on CUDA.

    It is compiled once for each set of shapes. If that fails (no Triton, no C compiler, an old GPU), the log
    says so once, and all functions run uncompiled from then on. Nothing is compiled while a CUDA graph is
    captured; the function runs uncompiled if its shapes are new.
    """

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    how: ClassVar[dict[str, Any]] = {"backend": "inductor", "options": {"compile_threads": 1}}
    """Arguments of `torch.compile`. Worker processes would take longer to start than to compile so little."""
    works: ClassVar[bool] = True

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._compiled: Callable[P, R] | None = None
        self._compiled_keys: set[object] = set()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, compiled or not."""
        if not (self.works and getattr(_thread, "on", False)):
            return self.function(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if any(tensor.device.type not in self.devices for tensor in tensors):
            return self.function(*args, **kwargs)
        key = (
            torch.is_inference_mode_enabled(),
            *map(_compile_key, args),
            *map(_compile_key, kwargs.values()),
        )
        if key in self._compiled_keys:
            return self._compile()(*args, **kwargs)
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return self.function(*args, **kwargs)
        return self._call_first_time(key, *args, **kwargs)

    def _call_first_time(self, key: object, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings(action="ignore"):  # torch advises lower precision
                result = self._compile()(*args, **kwargs)
        except Exception as error:  # whatever a compiler may raise
            cause = getattr(error, "inner_exception", error)  # torch wraps the error
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            fused.works = False
            reason = f"{type(cause).__name__}: {cause}".partition("\n")[0]
            log.warning("torch.compile does not work here, so norms and sums take longer: %s", reason)
            return self.function(*args, **kwargs)
        self._compiled_keys.add(key)
        return result

    def _compile(self) -> Callable[P, R]:
        if self._compiled is None:
            import torch._dynamo  # 4 seconds

            config: Any = torch._dynamo.config
            config.cache_size_limit = max(config.cache_size_limit, _MAX_SHAPES)
            self._compiled = torch.compile(self.function, dynamic=False, **self.how)
        return self._compiled


def _compile_key(value: object) -> object:
    """The properties of an argument for which torch compiles anew."""
    if not isinstance(value, Tensor):
        return value
    return value.shape, value.stride(), value.dtype, value.device, value.is_inference()
