"""What `fused` compiles gives the same numbers, and nobody is stopped where it cannot be compiled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vitmae_search.vitmae import fused, fusing
from vitmae_search.vitmae.modeling import join_tokens
from vitmae_search.vitmae.prepacked import add_norm, norm


class Compilers:
    """In a compiler's place: counts what it is given, and leaves it as it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[object], None]]:
    """Has CPU tensors compiled, by the backend given."""

    def use(backend: object) -> None:
        monkeypatch.setattr(fused, "devices", ("cpu",))
        monkeypatch.setattr(fused, "how", {"backend": backend})
        monkeypatch.setattr(fused, "works", True)

    yield use
    torch.compiler.reset()


@pytest.fixture
def compilers(on_cpu: Callable[[object], None]) -> Compilers:
    counting = Compilers()
    on_cpu(counting)
    return counting


def double(values: Tensor) -> Tensor:
    return values * 2


def arguments(device: str, rows: int = 10, width: int = 32, seed: int = 0) -> tuple[Any, ...]:
    """Of `add_norm`."""
    generator = torch.Generator().manual_seed(seed)
    tokens, branch, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((rows, width), (rows, width), width, width)
    )
    return *(value.to(device) for value in (tokens, branch.bfloat16(), weight, bias)), 1e-6


def test_compiled_functions_give_what_they_gave(on_cpu, device: str) -> None:
    if device == "cpu":
        on_cpu("aot_eager")
    rows, branch, weight, bias, eps = arguments(device)
    cases = (
        (add_norm.function, (rows, branch, weight, bias, eps)),
        (norm.function, (rows, weight, bias, eps)),
        (join_tokens, (branch.view(2, 5, 32), rows[:6].view(1, 6, 32), weight.view(1, 1, 32))),
    )
    for function, values in cases:
        compiled: Any = fused(function)
        with torch.inference_mode():
            expected = function(*values)
            with fusing():
                found = compiled(*values)
                again = compiled(*values)
        assert fused.works
        for one, other, third in zip(*map(_several, (expected, found, again)), strict=True):
            assert other.dtype == one.dtype
            assert other.device == one.device
            assert other.stride() == one.stride()
            # A sum in another order may round a bf16 the other way, which is a 256th of it.
            torch.testing.assert_close(other, one, rtol=2**-7, atol=1e-5)
            assert torch.equal(other, third)


def _several(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_nothing_is_compiled_outside_fusing(compilers: Compilers) -> None:
    compiled = fused(double)
    compiled(torch.ones(3))
    assert compilers.count == 0
    with fusing():
        compiled(torch.ones(3))
    compiled(torch.ones(4))
    assert compilers.count == 1


def test_on_a_cpu_nothing_is_compiled_at_all() -> None:
    compiled = fused(double)
    with fusing():
        compiled(torch.ones(3))
    assert compiled._compiled is None


def test_fusing_is_the_thread_s_own_and_ends_with_an_error(compilers: Compilers) -> None:
    compiled = fused(double)

    def fail() -> None:
        with fusing():
            with fusing():
                pass
            other = threading.Thread(target=compiled, args=(torch.ones(3),))
            other.start()
            other.join()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    compiled(torch.ones(3))
    assert compilers.count == 0


def test_layers_share_what_was_compiled_and_shapes_do_not_run_out(compilers: Compilers) -> None:
    compiled: Any = fused(add_norm.function)
    with torch.inference_mode(), fusing():
        for rows in range(2, 22):
            for layer in range(2):
                values = arguments("cpu", rows, seed=layer)
                assert torch.equal(compiled(*values)[1], add_norm.function(*values)[1])
    assert compilers.count == 20


def test_while_a_graph_is_captured_only_what_was_compiled_is_used(
    compilers: Compilers, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = fused(double)
    with fusing():
        compiled(torch.ones(3))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert torch.equal(compiled(torch.ones(4)), torch.full((4,), 2.0))
        assert compilers.count == 1
        with torch.inference_mode():  # which torch compiles anew for
            compiled(torch.ones(3))
        assert compilers.count == 1
        monkeypatch.undo()


def test_a_failed_compilation_is_logged_once(on_cpu, caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    def broken(graph: object, inputs: object) -> Callable[..., Any]:
        tries.append(1)
        raise RuntimeError("Cannot find a working triton installation.\nMore.")

    on_cpu(broken)
    with fusing(), caplog.at_level(logging.WARNING, logger="vitmae_search"):
        for compiled in (fused(double), fused(torch.square)):
            for count in (3, 4, 3):
                assert torch.equal(compiled(torch.ones(count)), compiled.function(torch.ones(count)))
    assert len(tries) == 1
    (message,) = (record.message for record in caplog.records)
    assert message.endswith("RuntimeError: Cannot find a working triton installation.")


@pytest.mark.parametrize("when", ["compiled", "run"])
def test_out_of_memory_is_raised_to_the_caller(on_cpu, when: str) -> None:
    full = [when]

    def needs(memory: str) -> None:
        if full == [memory]:
            full.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")

    def short(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        def run(*args: Tensor) -> Any:
            needs("run")
            return graph.forward(*args)

        needs("compiled")
        return run

    on_cpu(short)
    compiled = fused(double)
    with fusing():
        with pytest.raises(torch.OutOfMemoryError):
            compiled(torch.ones(3))
        assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 2.0))
    assert fused.works
