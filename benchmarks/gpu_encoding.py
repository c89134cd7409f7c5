"""Encoding on a GPU: images a second from what each way takes to vectors, beside transformers and timm.

    python -m benchmarks.gpu_encoding [--device cuda|cuda:N|cpu] [--only base|large|shipped] [--rounds 5]
                                      [--tables ways,choices,rest] [--modes MODE,...] [--compiling SECONDS]

"base" and "large" are ViT-B/16 and ViT-L/16 at 224 pixels with random weights, whose cosines say nothing of
drift; "shipped" is the bundled model. All ways of a table take turns in one run, medians of the rounds.
Others get pixels in bf16 that lie on the device already, at the fastest of several batch sizes; ours gets the
host's bytes, and normalises them. Three tables for each model:

- ways: ours beside the others. The shares are of a large bf16 product's rate, and of the rate of the products
  that the model's layers have, both measured in the same run. The cosines are to the reference's vectors in
  fp32 on the CPU, of real photos. "First" is the first call, which compiles or captures.
- choices: ours with each choice undone. What is faster than the first row should be chosen in its place.
- rest: where the time of ours goes, by kind of kernel and by kernel.

On a CPU the models are minute: that tries the code and says nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.devices import describe_device, require_device, synchronizer
from benchmarks.encoder_cases import (
    SHIPPED,
    EncoderCase,
    Rows,
    case_from_model,
    hf_model,
    one_at_a_time,
    random_case,
    unit_rows,
)
from benchmarks.gpu_peak_rates import SIDE, layer_products, product_rate
from benchmarks.gpu_profile import time_shares_table
from benchmarks.gpu_variants import MODES, Way, others
from benchmarks.timing import comparison_rows, format_figure, markdown_table, time_interleaved
from vitmae_search.vitmae import ViTMAEConfig

MODELS = ("base", "large", "shipped")
TABLES = ("ways", "choices", "rest")
OURS, RESIDENT = "ours", "ours, photos on the device"
_COMPARED = 64
"""Photos whose vectors are compared with the reference's, which takes its time for them."""


@dataclass(frozen=True)
class Scale:
    """How much is run: photos that there are, photos a round, the others' batch sizes, a product's side."""

    photos: int
    count: int
    sizes: tuple[int, ...]
    side: int


FULL = Scale(1024, 2048, (64, 128, 256, 512), SIDE)
SMALL = Scale(8192, 16384, (512, 1024, 2048, 4096), SIDE)
"""For small models."""
TRIAL = Scale(32, 32, (8, 16), 256)


def main() -> None:
    """Print the tables of each model as Markdown."""
    chosen = parsed()
    device = require_device(chosen.device)
    print(describe_device(device), flush=True)
    for name in [chosen.only] if chosen.only else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            case, scale = case_for(name, device, Path(folder))
            print(f"\n### {name if device.type != 'cpu' else f'{name} (a trial)'}\n", flush=True)
            measure(case, scale, device, chosen)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tables", type=_listed, default=list(TABLES))
    parser.add_argument("--modes", type=_listed, help="of torch.compile; those of a GPU, and none on a CPU")
    parser.add_argument("--compiling", type=float, default=180.0, help="seconds for all that compiles")
    return parser.parse_args()


def _listed(words: str) -> list[str]:
    return [word for word in words.split(",") if word]


def case_for(name: str, device: torch.device, folder: Path) -> tuple[EncoderCase, Scale]:
    """The model; on a CPU a minute one, or the bundled one."""
    trial = device.type == "cpu"
    if name == "shipped":
        scale = TRIAL if trial else SMALL
        return case_from_model(SHIPPED, 64, scale.photos), scale
    scale = TRIAL if trial else FULL
    return random_case("debug" if trial else name, scale.photos, folder), scale


def measure(case: EncoderCase, scale: Scale, device: torch.device, chosen: argparse.Namespace) -> None:
    """Print the tables that are asked for, each as soon as it is there."""
    exact = unit_rows(one_at_a_time(hf_model(case.folder, torch.float32), case.pixels[:_COMPARED]))
    if "ways" in chosen.tables:
        print(ways_table(case, scale, device, chosen, exact), flush=True)
    if "choices" in chosen.tables:
        print(f"\n{choices_table(case, scale, device, chosen, exact)}", flush=True)
    if "rest" in chosen.tables:
        runs = {name: way.run for name, way in ours(case, device).items()}
        print(f"\n{markdown_table(*time_shares_table(runs, device))}", flush=True)


def ours(case: EncoderCase, device: torch.device) -> dict[str, Way]:
    from benchmarks.gpu_plugin_variants import on_the_device, through_the_plugin

    resident = on_the_device(case.folder, case.images, device)
    return {RESIDENT: resident, OURS: through_the_plugin(case.folder, case.images, device)}


def ways_table(
    case: EncoderCase, scale: Scale, device: torch.device, chosen: argparse.Namespace, exact: Rows
) -> str:
    """Ours beside the others, as times the fastest of these."""
    pixels = case.pixels[: max(scale.sizes)].to(device, torch.bfloat16)
    modes = ([] if device.type == "cpu" else MODES) if chosen.modes is None else chosen.modes
    mine = ours(case, device)  # first, for where it fails the minutes of the others are for nothing
    theirs = dict(others(case.folder, pixels, scale.sizes, modes, chosen.compiling))
    ways = theirs | mine
    seconds = seconds_of(ways, scale.count, device, chosen.rounds)
    best = min(theirs, key=lambda name: float(np.median(seconds[name])))
    config = ViTMAEConfig.from_pretrained(str(case.folder))
    with torch.inference_mode():
        large = product_rate(device, scale.side, scale.side, scale.side)
        own = layers_rate(config, ways[RESIDENT].batch, device)
    notes = {}
    for name, way in ways.items():
        rate = operations(config) * scale.count / float(np.median(seconds[name]))
        notes[name] = [_percent(rate / large), _percent(rate / own), *noted(way, exact, device)]
    columns = ["% of a large product", "% of its products", *COLUMNS]
    counted, largest, each = (
        format_figure(figure) for figure in (operations(config) / 1e9, large / 1e12, own / 1e12)
    )
    said = f"{counted} GFLOP an image; TFLOP/s: {largest} in a large product, {each} in the layers' products"
    return f"{said}\n\n" + drawn(seconds, best, scale.count, notes, columns)


def choices_table(
    case: EncoderCase, scale: Scale, device: torch.device, chosen: argparse.Namespace, exact: Rows
) -> str:
    """Ours with each choice undone, as times ours as it is."""
    from benchmarks.gpu_plugin_variants import variants

    ways = dict(variants(case.folder, case.images, device))
    seconds = seconds_of(ways, scale.count, device, chosen.rounds)
    notes = {name: noted(way, exact, device) for name, way in ways.items()}
    return drawn(seconds, next(iter(ways)), scale.count, notes, COLUMNS)


COLUMNS = ["least cosine", "median", "batch", "first, s", "device memory, GiB"]


def noted(way: Way, exact: Rows, device: torch.device) -> list[str]:
    """What `COLUMNS` name."""
    cosines = (vectors(way, device)[: len(exact)] * exact[: way.batch]).sum(axis=1)
    found = [f"{figure:.6f}" for figure in (cosines.min(), np.median(cosines))]
    return [*found, str(way.batch), f"{way.first:.1f}", f"{way.memory:.2f}"]


def vectors(way: Way, device: torch.device) -> Rows:
    """(way.batch, D), of unit length."""
    rows = way.run()
    synchronizer(device)()  # it may have run on another stream than the one that reads them
    return unit_rows(np.asarray(rows.float().cpu() if isinstance(rows, torch.Tensor) else rows, np.float32))


def seconds_of(
    ways: Mapping[str, Way], count: int, device: torch.device, rounds: int
) -> dict[str, NDArray[np.float64]]:
    """(rounds,) of each way for `count` photos, in as many batches as that takes."""
    times = {name: -(-count // way.batch) for name, way in ways.items()}
    runs: dict[str, Callable[[], object]] = {
        name: partial(_repeat, way.run, times[name]) for name, way in ways.items()
    }
    taken = time_interleaved(runs, rounds=rounds, synchronise=synchronizer(device))
    return {name: taken[name] * count / (times[name] * way.batch) for name, way in ways.items()}


def drawn(
    seconds: Mapping[str, NDArray[np.float64]],
    reference: str,
    count: int,
    notes: Mapping[str, Sequence[object]],
    columns: Sequence[str],
) -> str:
    said: dict[str, Any] = {"unit": "images/s", "notes": notes, "columns": columns}
    return markdown_table(*comparison_rows(seconds, reference=reference, count=count, **said))


def operations(config: ViTMAEConfig) -> int:
    """Of the products of one whole image, a multiplication and an addition each counted.

    With T tokens of width D, L = T - 1 patches of P values and inner width I, a layer has 8·T·D² for its
    projections, 4·T²·D for attention and 4·T·D·I for its two widest products; the patches take 2·L·P·D.
    """
    width, inner, tokens = config.hidden_size, config.intermediate_size, 1 + config.num_patches
    layer = 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * inner
    ph, pw = config.patch_shape
    patches = 2 * config.num_patches * config.num_channels * ph * pw * width
    return int(config.num_hidden_layers * layer + patches)


def layers_rate(config: ViTMAEConfig, photos: int, device: torch.device) -> float:
    """FLOP/s of a layer's four products one after another, for so many photos at a time."""
    rows, done, taken = photos * (1 + config.num_patches), 0.0, 0.0
    for inner, outer in layer_products(config.hidden_size).values():
        done += 2 * rows * inner * outer
        taken += 2 * rows * inner * outer / product_rate(device, rows, inner, outer)
    return done / taken


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
