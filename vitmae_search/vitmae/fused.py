"""Small functions of norms and sums as one GPU kernel each, which reads and writes every tensor once."""

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

_SHAPES = 64
"""How many shapes `torch.compile` keeps a function for. Several models soon reach its own limit, 8."""

_thread = threading.local()


@contextmanager
def fusing() -> Iterator[None]:
    """Within it, what this thread calls of `fused` functions is compiled.

    The first call with new shapes takes seconds, or half a minute when nothing was compiled yet, so this is
    for shapes that come again and again.
    """
    before = getattr(_thread, "on", False)
    _thread.on = True
    try:
        yield
    finally:
        _thread.on = before


class fused(Generic[P, R]):  # noqa: N801  (a decorator)
    """The function itself, or, within `fusing()` and for tensors on CUDA, what `torch.compile` makes of it.

    It is compiled once for each set of shapes. Where that fails (no Triton, no C compiler, an old card), the
    log says so once, and all functions are called as they are from then on. While a CUDA graph is captured
    nothing is compiled: with shapes that were not called before, the function itself is.
    """

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    how: ClassVar[dict[str, Any]] = {"backend": "inductor", "options": {"compile_threads": 1}}
    """For so little code, worker processes would take longer to start than to compile it."""
    works: ClassVar[bool] = True

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._compiled: Callable[P, R] | None = None
        self._known: set[object] = set()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not (self.works and getattr(_thread, "on", False)):
            return self.function(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if any(tensor.device.type not in self.devices for tensor in tensors):
            return self.function(*args, **kwargs)
        shapes = (torch.is_inference_mode_enabled(), *map(_looks, args), *map(_looks, kwargs.values()))
        if shapes in self._known:
            return self._compile()(*args, **kwargs)
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return self.function(*args, **kwargs)
        return self._first(shapes, *args, **kwargs)

    def _first(self, shapes: object, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings(action="ignore"):  # of precision that is as it should be
                result = self._compile()(*args, **kwargs)
        except Exception as error:  # whatever a compiler may raise
            cause = getattr(error, "inner_exception", error)  # torch puts its own around it
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            fused.works = False
            reason = f"{type(cause).__name__}: {cause}".partition("\n")[0]
            log.warning("torch.compile does not work here, so norms and sums take longer: %s", reason)
            return self.function(*args, **kwargs)
        self._known.add(shapes)
        return result

    def _compile(self) -> Callable[P, R]:
        if self._compiled is None:
            import torch._dynamo  # 4 seconds

            config: Any = torch._dynamo.config
            config.cache_size_limit = max(config.cache_size_limit, _SHAPES)
            self._compiled = torch.compile(self.function, dynamic=False, **self.how)
        return self._compiled


def _looks(value: object) -> object:
    """What torch compiles for, of an argument."""
    if not isinstance(value, Tensor):
        return value
    return value.shape, value.stride(), value.dtype, value.device, value.is_inference()
