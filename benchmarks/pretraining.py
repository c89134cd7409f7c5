"""A pretraining step compared with the original authors' and transformers': same weights, photos and masks.

    python -m benchmarks.pretraining [--device auto|cpu|cuda] [--only base|large|tiny] [--authors FOLDER]

A step is the loss, its gradient and AdamW. All take turns in one run. FOLDER is a clone of
https://github.com/facebookresearch/mae, which needs timm; without both, their rows are left out. bf16 is
autocast over fp32 weights.

On a CPU rows are in fp32 unless they say bf16; ours in bf16 is what `pretrain` does where the CPU multiplies
in bf16.

On a GPU the authors' rows are as in their engine_pretrain.py: autocast, a gradient scaler for fp16, the
gradient norm, torch's default AdamW, and after each step the loss is read and the device waited for.
transformers has bf16, the fused AdamW, and in one row torch.compile of the whole model. "as pretrain does it"
is ours with all that a step of `pretrain` does: photos in the device's memory as uint8, crops and masks drawn
on the host, crops computed on the device, the gradient norm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.devices import PeakMemory, describe_device, product_rate, require_device, synchronizer
from benchmarks.pretraining_variants import (
    REFERENCE,
    PretrainingCase,
    Variants,
    Work,
    make_case,
    variants_on_cpu,
    variants_on_gpu,
)
from benchmarks.timing import comparison_rows, format_figure, markdown_table, time_interleaved
from vitmae_search.training import PRESETS
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining


class ModelSize(NamedTuple):
    """Fields that differ from ViT-B/16 at 224 pixels, and batch sizes on a CPU and on a GPU."""

    fields: dict[str, Any]
    on_cpu: int
    on_gpu: int


T = TypeVar("T")

SIZES = {
    "base": ModelSize(PRESETS["base"], 16, 256),
    "large": ModelSize(PRESETS["large"], 4, 128),
    "tiny": ModelSize(PRESETS["tiny"], 256, 4096),  # the bundled model
    "debug": ModelSize(
        {**PRESETS["tiny"], "num_hidden_layers": 1, "image_size": 16}, 4, 4
    ),  # to try this out
}
ON_CPU, ON_GPU = ("base", "tiny"), ("base", "large", "tiny")
GPU_STEPS = 5  # queued at a time on a GPU, which so never waits for work
PRODUCT_SIDE = 8192  # rows and columns of the product that the shares refer to

Seconds = Mapping[str, NDArray[np.float64]]


def main() -> None:
    """Print a table for each model as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=SIZES, help="one model")
    parser.add_argument("--authors", type=Path, help="a clone of facebookresearch/mae  [default: ./mae]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--as-on-a-gpu", action="store_true", help="the GPU's rows on a CPU, to try them out")
    chosen = parser.parse_args()
    device = require_device(chosen.device)
    authors = chosen.authors or (Path("mae") if Path("mae/models_mae.py").exists() else None)
    if authors is None:
        print("Without the authors' rows: --authors FOLDER takes a clone of facebookresearch/mae.")
    print(describe_device(device))
    as_gpu = device.type == "cuda" or chosen.as_on_a_gpu
    for size in [chosen.only] if chosen.only else ON_GPU if as_gpu else ON_CPU:
        print(f"\n{(measure_gpu if as_gpu else measure_cpu)(size, device, authors, chosen.rounds)}")


def _case_for(size: str, count: int, device: torch.device) -> PretrainingCase:
    config = ViTMAEConfig(**SIZES[size].fields, norm_pix_loss=True, layer_norm_eps=1e-6)
    return make_case(config, count, device)


def measure_cpu(size: str, device: torch.device, authors: Path | None, rounds: int) -> str:
    """The table of one model with a CPU's rows.

    Args:
        size: A name of `SIZES`.
        device: Where it runs.
        authors: A clone of facebookresearch/mae, or None.
        rounds: Timed rounds.
    """
    case = _case_for(size, SIZES[size].on_cpu, device)
    steps = {name: make() for name, make in variants_on_cpu(case, authors).items()}
    for step in steps.values():
        step.first()
    seconds = time_interleaved(steps, rounds=rounds, warm_up=0)
    notes = {name: step.drift(steps[REFERENCE]) for name, step in steps.items()}
    columns = (f"loss at step {rounds + 1}", "cosine of the first gradient")
    shown = comparison_rows(
        seconds, reference=REFERENCE, count=case.count, unit="images/s", notes=notes, columns=columns
    )
    compiling = steps["ours, bf16, compiled"].first_seconds
    return f"{size}, batches of {case.count}; compiling took {compiling:.0f} s\n\n{markdown_table(*shown)}"


def measure_gpu(size: str, device: torch.device, authors: Path | None, rounds: int) -> str:
    """The table of one model with a GPU's rows; on a CPU with small sizes, to try it out.

    Args:
        size: A name of `SIZES`.
        device: Where it runs.
        authors: A clone of facebookresearch/mae, or None.
        rounds: Timed rounds.
    """
    trial = device.type == "cpu"
    case = _case_for(size, SIZES[size].on_cpu if trial else SIZES[size].on_gpu, device)
    steps, memory = start_all(variants_on_gpu(case, authors), device)
    repeats = 1 if trial else GPU_STEPS
    works: dict[str, Work] = {name: partial(_repeat, step, repeats) for name, step in steps.items()}
    seconds = time_interleaved(works, rounds=rounds, synchronise=synchronizer(device))
    theirs = [name for name in steps if not name.startswith("ours")]
    best = min(theirs, key=lambda name: float(np.median(seconds[name])))
    rate = product_rate(device, 64 if trial else PRODUCT_SIDE)
    operations = step_operations(case.config)
    notes = {
        name: (
            f"{operations * case.count * repeats / float(np.median(seconds[name])) / rate:.0%}",
            f"{memory[name]:.1f}",
            *step.drift(steps[REFERENCE]),
        )
        for name, step in steps.items()
    }
    columns = ("of a product's rate", "GiB", "last loss", "cosine of the first gradient")
    shown = comparison_rows(
        seconds, reference=best, count=case.count * repeats, unit="images/s", notes=notes, columns=columns
    )
    summary = f"{size}, batches of {case.count}; {format_figure(operations / 1e9)} GFLOP an image and step; "
    return f"{summary}a bf16 product reaches {format_figure(rate / 1e12)} TFLOP/s\n\n{markdown_table(*shown)}"


def start_all(variants: Variants, device: torch.device) -> tuple[dict[str, Any], dict[str, float]]:
    """Make each variant and run its first step.

    One that fails, for lack of a C compiler or memory, is reported and left out.

    Args:
        variants: Makers of the variants by name.
        device: Where it runs.

    Returns:
        The variants, and their peak memory in GiB.
    """
    made = {name: try_or_report(name, partial(_start, make, device)) for name, make in variants.items()}
    there = {name: both for name, both in made.items() if both is not None}
    return {name: step for name, (step, _) in there.items()}, {name: gib for name, (_, gib) in there.items()}


def try_or_report(name: str, make: Callable[[], T]) -> T | None:
    """What `make` returns, or None if it fails in any way, which is reported.

    Args:
        name: Its name in the report.
        make: Calls others' code.
    """
    try:
        return make()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(f"left out: {name}; {reason}")
        return None


def _start(make: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    memory, steps = PeakMemory(device), []

    def begin() -> None:
        steps.append(make())
        steps[0].first()

    needed = memory.peak(begin)
    return steps[0], needed


def _repeat(step: Work, times: int) -> None:
    for _ in range(times):
        step()


def step_operations(config: ViTMAEConfig) -> int:
    """FLOP of one photo's loss and gradient, counted by torch; multiplications and additions separately."""
    with torch.device("meta"):
        model = ViTMAEForPreTraining(config, attn_implementation="eager").to("meta").train()
        pixels = torch.empty(1, config.num_channels, *config.image_shape)
        noise = torch.empty(1, config.num_patches)
    with FlopCounterMode(display=False) as counter:
        model(pixels, noise=noise).loss.backward()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
