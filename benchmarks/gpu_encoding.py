"""Encoding on a GPU: images a second from input to vectors, compared with transformers and timm.

    python -m benchmarks.gpu_encoding [--device cuda|cuda:N|cpu] [--only base|large|shipped] [--rounds 5]
                                      [--tables comparison,choices,profile] [--modes MODE,...]
                                      [--compiling SECONDS]

"base" and "large" are ViT-B/16 and ViT-L/16 at 224 pixels with random weights, whose cosines say nothing
about drift; "shipped" is the bundled model. All candidates of a table take turns in one run; medians of the
rounds. Others get bf16 pixels that are on the device already, at the fastest of several batch sizes; ours
gets the host's bytes, and normalises them. Three tables for each model:

- comparison: ours and the others. The shares are of the rate of a large bf16 product, and of the rate of the
  products in the model's layers, both measured in the same run. The cosines are to the reference's vectors in
  fp32 on the CPU, of real photos. "First" is the first call, which compiles or captures.
- choices: ours with each of our choices undone. A row that is faster than the first should become
  the default.
- profile: where the time of ours goes, by kind of kernel and by kernel.

On a CPU the models are very small, to try out the code; such figures mean nothing.
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
from benchmarks.gpu_other_encoders import MODES, Candidate, reference_candidates
from benchmarks.gpu_peak_rates import SIDE, layer_products, product_rate
from benchmarks.gpu_profile import time_shares_table
from benchmarks.timing import comparison_rows, format_figure, markdown_table, time_interleaved
from vitmae_search.vitmae import ViTMAEConfig

MODELS = ("base", "large", "shipped")
TABLES = ("comparison", "choices", "profile")
OURS, OURS_RESIDENT = "ours", "ours, photos on the device"
_COMPARED = 64
"""Photos whose vectors are compared with those of the reference, which is slow."""


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        photos: Different photos.
        count: Photos in a round.
        sizes: Batch sizes of the others.
        side: Rows and columns of the large product.
    """

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
    chosen = parse_arguments()
    device = require_device(chosen.device)
    print(describe_device(device), flush=True)
    for name in [chosen.only] if chosen.only else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            case, scale = case_for(name, device, Path(folder))
            print(f"\n### {name if device.type != 'cpu' else f'{name} (a trial)'}\n", flush=True)
            measure(case, scale, device, chosen)


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tables", type=_listed, default=list(TABLES))
    parser.add_argument(
        "--modes", type=_listed, help="of torch.compile  [default: two on a GPU, none on a CPU]"
    )
    parser.add_argument("--compiling", type=float, default=180.0, help="seconds for all that compiles")
    return parser.parse_args()


def _listed(words: str) -> list[str]:
    return [word for word in words.split(",") if word]


def case_for(name: str, device: torch.device, folder: Path) -> tuple[EncoderCase, Scale]:
    """Model, batch and scale; on a CPU a very small model, or the bundled one.

    Args:
        name: A name of `MODELS`.
        device: Where it will run.
        folder: Where a model is written.
    """
    trial = device.type == "cpu"
    if name == "shipped":
        scale = TRIAL if trial else SMALL
        return case_from_model(SHIPPED, 64, scale.photos), scale
    scale = TRIAL if trial else FULL
    return random_case("debug" if trial else name, scale.photos, folder), scale


def measure(case: EncoderCase, scale: Scale, device: torch.device, chosen: argparse.Namespace) -> None:
    """Print the chosen tables, each as soon as it is known.

    Args:
        case: Model and batch.
        scale: How much is run.
        device: Where it runs.
        chosen: The options of the command line.
    """
    exact = unit_rows(one_at_a_time(hf_model(case.folder, torch.float32), case.pixels[:_COMPARED]))
    if "comparison" in chosen.tables:
        print(comparison_table(case, scale, device, chosen, exact), flush=True)
    if "choices" in chosen.tables:
        print(f"\n{choices_table(case, scale, device, chosen, exact)}", flush=True)
    if "profile" in chosen.tables:
        runs = {name: candidate.run for name, candidate in own_candidates(case, device).items()}
        print(f"\n{markdown_table(*time_shares_table(runs, device))}", flush=True)


def own_candidates(case: EncoderCase, device: torch.device) -> dict[str, Candidate]:
    """Ours by name: from photos on the device, and from photos on the host.

    Args:
        case: Model and batch.
        device: Where it runs.
    """
    from benchmarks.gpu_own_variants import plugin_candidate, resident_candidate

    resident = resident_candidate(case.folder, case.images, device)
    return {OURS_RESIDENT: resident, OURS: plugin_candidate(case.folder, case.images, device)}


def comparison_table(
    case: EncoderCase, scale: Scale, device: torch.device, chosen: argparse.Namespace, exact: Rows
) -> str:
    """Ours and the others; speedups are over the fastest of the others.

    Args:
        case: Model and batch.
        scale: How much is run.
        device: Where it runs.
        chosen: The options of the command line.
        exact: (n, D) unit vectors of the reference.
    """
    pixels = case.pixels[: max(scale.sizes)].to(device, torch.bfloat16)
    modes = ([] if device.type == "cpu" else MODES) if chosen.modes is None else chosen.modes
    mine = own_candidates(case, device)  # first: if it fails, the time of the others would be wasted
    theirs = dict(reference_candidates(case.folder, pixels, scale.sizes, modes, chosen.compiling))
    candidates = theirs | mine
    seconds = time_candidates(candidates, scale.count, device, chosen.rounds)
    best = min(theirs, key=lambda name: float(np.median(seconds[name])))
    config = ViTMAEConfig.from_pretrained(str(case.folder))
    with torch.inference_mode():
        large = product_rate(device, scale.side, scale.side, scale.side)
        own = layer_product_rate(config, candidates[OURS_RESIDENT].batch, device)
    notes = {}
    for name, candidate in candidates.items():
        rate = forward_operations(config) * scale.count / float(np.median(seconds[name]))
        notes[name] = [_percent(rate / large), _percent(rate / own), *notes_of(candidate, exact, device)]
    columns = ["% of a large product", "% of its products", *COLUMNS]
    counted, largest, each = (
        format_figure(figure) for figure in (forward_operations(config) / 1e9, large / 1e12, own / 1e12)
    )
    summary = (
        f"{counted} GFLOP an image; TFLOP/s: {largest} in a large product, {each} in the layers' products"
    )
    return f"{summary}\n\n" + render_table(seconds, best, scale.count, notes, columns)


def choices_table(
    case: EncoderCase, scale: Scale, device: torch.device, chosen: argparse.Namespace, exact: Rows
) -> str:
    """Ours with each choice undone; speedups are over ours as it is.

    Args:
        case: Model and batch.
        scale: How much is run.
        device: Where it runs.
        chosen: The options of the command line.
        exact: (n, D) unit vectors of the reference.
    """
    from benchmarks.gpu_own_variants import variant_candidates

    candidates = dict(variant_candidates(case.folder, case.images, device))
    seconds = time_candidates(candidates, scale.count, device, chosen.rounds)
    notes = {name: notes_of(candidate, exact, device) for name, candidate in candidates.items()}
    return render_table(seconds, next(iter(candidates)), scale.count, notes, COLUMNS)


COLUMNS = ["lowest cosine", "median", "batch", "first, s", "device memory, GiB"]


def notes_of(candidate: Candidate, exact: Rows, device: torch.device) -> list[str]:
    """The cells of `COLUMNS`.

    Args:
        candidate: The candidate.
        exact: (n, D) unit vectors of the reference.
        device: Where it runs.
    """
    cosines = (unit_vectors(candidate, device)[: len(exact)] * exact[: candidate.batch]).sum(axis=1)
    found = [f"{figure:.6f}" for figure in (cosines.min(), np.median(cosines))]
    return [*found, str(candidate.batch), f"{candidate.first:.1f}", f"{candidate.memory:.2f}"]


def unit_vectors(candidate: Candidate, device: torch.device) -> Rows:
    """Its vectors: (batch, D) of unit length.

    Args:
        candidate: The candidate.
        device: Where it runs.
    """
    rows = candidate.run()
    synchronizer(device)()  # it may have run on another stream than the one that reads them
    return unit_rows(np.asarray(rows.float().cpu() if isinstance(rows, torch.Tensor) else rows, np.float32))


def time_candidates(
    candidates: Mapping[str, Candidate], count: int, device: torch.device, rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Time candidates on `count` photos, in as many batches as that takes.

    Args:
        candidates: The candidates by name.
        count: Photos.
        device: Where it runs.
        rounds: Timed rounds.

    Returns:
        (rounds,) seconds of each.
    """
    times = {name: -(-count // candidate.batch) for name, candidate in candidates.items()}
    runs: dict[str, Callable[[], object]] = {
        name: partial(_repeat, candidate.run, times[name]) for name, candidate in candidates.items()
    }
    taken = time_interleaved(runs, rounds=rounds, synchronise=synchronizer(device))
    return {
        name: taken[name] * count / (times[name] * candidate.batch) for name, candidate in candidates.items()
    }


def render_table(
    seconds: Mapping[str, NDArray[np.float64]],
    reference: str,
    count: int,
    notes: Mapping[str, Sequence[object]],
    columns: Sequence[str],
) -> str:
    """A Markdown table of images a second.

    Args:
        seconds: (rounds,) of each candidate.
        reference: The name of the one whose speedup is 1.
        count: Photos of a round.
        notes: Further cells of each row.
        columns: Their names.
    """
    summary: dict[str, Any] = {"unit": "images/s", "notes": notes, "columns": columns}
    return markdown_table(*comparison_rows(seconds, reference=reference, count=count, **summary))


def forward_operations(config: ViTMAEConfig) -> int:
    """FLOP of the products for one image; multiplications and additions are counted separately.

    With T tokens of width D, L = T - 1 patches of P values and inner width I, a layer has 8·T·D² for its
    projections, 4·T²·D for attention and 4·T·D·I for its two widest products; the patches take 2·L·P·D.
    """
    width, inner, tokens = config.hidden_size, config.intermediate_size, 1 + config.num_patches
    layer = 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * inner
    ph, pw = config.patch_shape
    patches = 2 * config.num_patches * config.num_channels * ph * pw * width
    return int(config.num_hidden_layers * layer + patches)


def layer_product_rate(config: ViTMAEConfig, photos: int, device: torch.device) -> float:
    """FLOP/s of a layer's four products in sequence.

    Args:
        config: The model's configuration.
        photos: A batch.
        device: Where it runs.
    """
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
