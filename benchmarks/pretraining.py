"""A step of pretraining beside the original authors' and transformers': the same weights, photos and masks.

    python -m benchmarks.pretraining [--device auto|cpu|cuda] [--only base|large|tiny] [--authors FOLDER]

A step is the loss, its gradient and AdamW. All take turns in one run. FOLDER is a clone of
https://github.com/facebookresearch/mae, which needs timm; without both their rows are left out. bf16 is
autocast over fp32 weights.

On a CPU, in fp32 unless bf16 is said; ours in bf16 is what `pretrain` does where the CPU multiplies in bf16.

On a GPU, the authors as in their engine_pretrain.py: autocast, for fp16 with a scaler of gradients, the norm
of the gradient, AdamW as torch makes it, and after each step its loss is read and the device waited for.
transformers is given what it has: bf16, the fused AdamW, and once torch.compile of the whole model. "as
pretrain does it" is ours with all that a step of `pretrain` really does: photos in the device's memory as
uint8, crops and masks drawn on the host, crops made on the device, the norm of the gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.devices import PeakMemory, describe_device, require_device, synchronizer
from benchmarks.gpu_peak_rates import product_rate
from benchmarks.gpu_variants import attempt
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


class Size(NamedTuple):
    """Fields that are not ViT-B/16's at 224 pixels, and photos a step on a CPU and on a GPU."""

    fields: dict[str, Any]
    on_cpu: int
    on_gpu: int


SIZES = {
    "base": Size(PRESETS["base"], 16, 256),
    "large": Size(PRESETS["large"], 4, 128),
    "tiny": Size(PRESETS["tiny"], 256, 4096),  # the bundled model
    "debug": Size({**PRESETS["tiny"], "num_hidden_layers": 1, "image_size": 16}, 4, 4),  # to try this out
}
ON_CPU, ON_GPU = ("base", "tiny"), ("base", "large", "tiny")
GPU_STEPS = 5  # at a time on a GPU, which is then never without work
PRODUCT_SIDE = 8192  # rows and columns of the product whose rate is the device's

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
    parser.add_argument("--as-on-a-gpu", action="store_true", help="its rows on a CPU, to try them out")
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
    """The table of one model."""
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
    """The table of one model."""
    tried = device.type == "cpu"
    case = _case_for(size, SIZES[size].on_cpu if tried else SIZES[size].on_gpu, device)
    steps, memory = start_all(variants_on_gpu(case, authors), device)
    repeats = 1 if tried else GPU_STEPS
    works: dict[str, Work] = {name: partial(_repeat, step, repeats) for name, step in steps.items()}
    seconds = time_interleaved(works, rounds=rounds, synchronise=synchronizer(device))
    theirs = [name for name in steps if not name.startswith("ours")]
    best = min(theirs, key=lambda name: float(np.median(seconds[name])))
    rate = product_rate(device, *(3 * (64 if tried else PRODUCT_SIDE,)))
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
    said = f"{size}, batches of {case.count}; {format_figure(operations / 1e9)} GFLOP an image and step; "
    return f"{said}a bf16 product reaches {format_figure(rate / 1e12)} TFLOP/s\n\n{markdown_table(*shown)}"


def start_all(ways: Variants, device: torch.device) -> tuple[dict[str, Any], dict[str, float]]:
    """Each way after its first step, and the memory in GiB that it then had needed.

    One that fails, for want of a C compiler or of memory, is named and left out.
    """
    made = {name: attempt(name, partial(_start, make, device)) for name, make in ways.items()}
    there = {name: both for name, both in made.items() if both is not None}
    return {name: step for name, (step, _) in there.items()}, {name: gib for name, (_, gib) in there.items()}


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
    """FLOP of one photo's loss and gradient, two for each product and sum; counted, not estimated."""
    with torch.device("meta"):
        model = ViTMAEForPreTraining(config, attn_implementation="eager").to("meta").train()
        pixels = torch.empty(1, config.num_channels, *config.image_shape)
        noise = torch.empty(1, config.num_patches)
    with FlopCounterMode(display=False) as counter:
        model(pixels, noise=noise).loss.backward()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
