"""Peak rates of a device: products in bf16, attention, norms, and copies within it and to the host.

    python -m benchmarks.gpu_peak_rates [--device cuda|cuda:N|cpu]

Measured on random numbers (products of zeros are faster) by the device's clock; medians. On a CPU the shapes
are small, to try out the code; such figures mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.devices import describe_device, device_state, median_seconds, require_device
from benchmarks.timing import format_figure, markdown_table
from vitmae_search.vitmae.fused import fusing
from vitmae_search.vitmae.prepacked import add_norm

TOKENS = 197
WIDTHS = {"ViT-B/16": 768, "ViT-L/16": 1024}
HEAD = 64
SIDE = 8192
ATTENTIONS = {
    "as torch chooses": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    device = require_device(parser.parse_args().device)
    small = device.type == "cpu"
    photos = 2 if small else 128
    print(f"{describe_device(device)}\n")
    with torch.inference_mode():
        header = ["bf16 product", "rows × in → out", "TFLOP/s"]
        print(markdown_table(header, products(device, photos, 256 if small else SIDE)), "\n", flush=True)
        print(f"after the products: {device_state(device)}\n")
        header = ["add, norm and round", "ms", "GB/s"]
        print(markdown_table(header, norms(device, photos)), "\n", flush=True)
        header = [f"attention of {photos} photos", "ms", "TFLOP/s"]
        print(markdown_table(header, attentions(device, photos)), "\n", flush=True)
        print(
            markdown_table(["copy", "MiB", "GB/s"], copy_rates(device, 1 << (22 if small else 30))),
            flush=True,
        )


def products(device: torch.device, photos: int, side: int) -> Iterator[list[str]]:
    """Rows: a large square product, then those of the encoders' layers; the last with GELU in the product.

    Args:
        device: Where it runs.
        photos: A batch.
        side: Rows and columns of the large product.
    """
    yield ["large", f"{side} × {side} → {side}", _tera_per_second(product_rate(device, side, side, side))]
    for name, width in WIDTHS.items():
        for what, (inner, outer) in layer_products(width).items():
            rate = product_rate(device, photos * TOKENS, inner, outer)
            yield [f"{name}, {what}", f"{photos} · {TOKENS} × {inner} → {outer}", _tera_per_second(rate)]
        rate = product_rate(device, photos * TOKENS, width, 4 * width, gelu=True)
        yield [
            f"{name}, fc1 with GELU",
            f"{photos} · {TOKENS} × {width} → {4 * width}",
            _tera_per_second(rate),
        ]


def layer_products(width: int) -> dict[str, tuple[int, int]]:
    """(in, out) of a layer's four products by name."""
    return {
        "query, key, value": (width, 3 * width),
        "attention output": (width, width),
        "fc1": (width, 4 * width),
        "fc2": (4 * width, width),
    }


def product_rate(device: torch.device, rows: int, inner: int, outer: int, *, gelu: bool = False) -> float:
    """FLOP/s of (rows, inner) · (outer, inner)ᵀ + bias in bf16.

    Args:
        device: Where it runs.
        rows: Rows of the left matrix.
        inner: The dimension that is summed.
        outer: Columns of the result.
        gelu: Apply GELU (tanh form) in the same kernel.
    """
    left, weight = _random(device, rows, inner), _random(device, outer, inner)
    bias = _random(device, outer)
    work: Callable[[], object] = partial(functional.linear, left, weight, bias)
    if gelu:
        work = partial(torch._addmm_activation, bias, left, weight.T, use_gelu=True)
    return 2 * rows * inner * outer / median_seconds(work, device)


def norms(device: torch.device, photos: int) -> Iterator[list[str]]:
    """Rows: add and norm between two products, with torch's kernels and compiled into one.

    Counted bytes: fp32 tokens and a bf16 branch are read, their sum and its norm are written.

    Args:
        device: Where it runs.
        photos: A batch.
    """
    for name, width in WIDTHS.items():
        tokens, branch = (_random(device, photos * TOKENS, width) for _ in range(2))
        tokens = tokens.float()
        weight, bias = (_random(device, width).float() for _ in range(2))
        work = partial(add_norm, tokens, branch, weight, bias, 1e-12)
        for kind, context in (("torch's own", nullcontext), ("compiled", fusing)):
            with context():
                seconds = median_seconds(work, device)
            moved = format_figure(12 * tokens.numel() / seconds / 1e9)
            yield [f"{name}, {kind}", f"{1e3 * seconds:.3f}", moved]


def attentions(device: torch.device, photos: int) -> Iterator[list[str]]:
    """Rows: each of torch's attention kernels, on views of one tensor, as in the encoder.

    Args:
        device: Where it runs.
        photos: A batch.
    """
    for name, width in WIDTHS.items():
        heads = width // HEAD
        packed = _random(device, photos, TOKENS, 3, heads, HEAD)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        for kind, backend in ATTENTIONS.items():
            work = partial(attention_with, query, key, value, backend)
            try:
                seconds = median_seconds(work, device)
            except RuntimeError as error:
                yield [f"{name}, {kind}", f"not here: {str(error).partition('. ')[0]}", ""]
                continue
            operations = 4 * photos * heads * TOKENS**2 * HEAD
            yield [f"{name}, {kind}", f"{1e3 * seconds:.3f}", _tera_per_second(operations / seconds)]


def attention_with(query: Tensor, key: Tensor, value: Tensor, backend: SDPBackend | None) -> Tensor:
    """Attention by one backend.

    Args:
        query: (N, heads, T, head).
        key: The same shape.
        value: The same shape.
        backend: None lets torch choose.

    Raises:
        RuntimeError: The backend cannot do it here.
    """
    if backend is None:
        return functional.scaled_dot_product_attention(query, key, value)
    with sdpa_kernel(backend):
        return functional.scaled_dot_product_attention(query, key, value)


def copy_rates(device: torch.device, count: int) -> Iterator[list[str]]:
    """Rows: copies within the device (bytes read and written are both counted), to it and from it.

    Args:
        device: Where it runs.
        count: Bytes.
    """
    source = torch.randint(256, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    yield _copy_row("within the device, read + written", source, target, 2 * count)
    host = torch.empty(count // 4, dtype=torch.uint8, pin_memory=device.type == "cuda")
    host.random_(256)
    part = target[: len(host)]
    yield _copy_row("to the device, from pinned memory", host, part, len(host))
    yield _copy_row("to the device, from other memory", host.clone(), part, len(host))
    yield _copy_row("from the device, to pinned memory", part, host, len(host))


def _copy_row(name: str, source: Tensor, target: Tensor, moved: int) -> list[str]:
    device = source.device if source.device.type == "cuda" else target.device
    seconds = median_seconds(lambda: target.copy_(source, non_blocking=True), device, repeats=10)
    return [name, f"{len(source) / 2**20:.0f}", format_figure(moved / seconds / 1e9)]


def _random(device: torch.device, *shape: int) -> Tensor:
    """Normal, in bf16."""
    kind: Any = {"device": device, "dtype": torch.bfloat16}
    return torch.randn(*shape, **kind)


def _tera_per_second(rate: float) -> str:
    return format_figure(rate / 1e12)


if __name__ == "__main__":
    main()
