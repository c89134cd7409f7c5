"""Train a model like the bundled one from start to end, and report whether it searches better.

    python -m benchmarks.train_default --data tiny-imagenet-200 --cifar cifar10 --output runs/new
        [--size tiny|small|base] [--epochs 400,300] [--batch-size 2048] [--device cuda] [--minutes 9]

Both stages of the bundled model's card, by `vitmae_search.training.pretrain`: a masked autoencoder on
Tiny-ImageNet's training images; then, on these and half of CIFAR-10's, the same with a contrastive loss. The
moving average of the weights, in half precision, becomes OUTPUT/model, in files of at most 15 MB. This needs
only torch, Pillow and safetensors. If faiss, SQLAlchemy and click are installed, `adapt` and `evaluate`
follow, and the model is compared with the bundled one. Finished work is not repeated: after a kill, or when
`--minutes` stopped it, the same command resumes. To continue on another machine with `adapt`, copy
OUTPUT/model and OUTPUT/facts.json.

The recipe is the card's, with batches of 2,048 and the paper's schedule. An epoch has 49 steps, each of which
should keep a GPU busy for longer than launching its thousand kernels takes. The learning rate grows with the
batch, from the paper's base of 1.5e-4 to 1.2e-3, which is near the peaks of 1e-3 and 1.2e-3 that the bundled
model was trained with. (The bundled model's base rate, 1e-3 for 256, would give 8e-3 here, for which there is
no evidence.) Warm-up takes a twentieth of the epochs, as in the paper (40 of 800). The moving average covers
about 1,000 steps; for the bundled model, which had fewer steps, it was 500.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import describe_machine, format_figure, markdown_table
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.training import PRESETS, PretrainProgress, pretrain
from vitmae_search.training.data.packed_photos import list_photos
from vitmae_search.training.log import PretrainLog
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining

STAGES = ("masked", "contrastive")
RECIPE: dict[str, Any] = {"learning_rate": 1.5e-4, "warmup": 0.05, "clip_norm": 1.0, "save_minutes": 2.0}
CONTRASTIVE_RECIPE: dict[str, Any] = {"contrastive": 1.0, "ema": 0.999}
SHARD_BYTES = 15_000_000  # bytes
CIFAR_PHOTOS = 25_000
PICTURES = ("loss.png", "reconstructions.png")
INTERRUPTED = 130


def main() -> None:
    """Do what is not done yet. Exits with 130 if `--minutes` stopped it."""
    chosen = _arguments()
    if importlib.util.find_spec("platformdirs") is None:  # it would name the user's data folder
        for name in ("VITMAE_SEARCH_DATA", "VITMAE_SEARCH_CACHE"):
            os.environ.setdefault(name, os.fspath(chosen.output.absolute() / "kept"))
    deadline = time.monotonic() + 60 * (chosen.minutes or float("inf"))

    def out_of_time() -> bool:
        return time.monotonic() >= deadline

    try:
        trained = (chosen.output / "facts.json").exists() or train(chosen, out_of_time)
    except VitmaeSearchError as error:
        sys.exit(str(error))
    if not trained:
        sys.exit(_stopped("stopped"))
    print((chosen.output / "facts.md").read_text("utf-8"))
    missing = [name for name in ("click", "faiss", "sqlalchemy") if not importlib.util.find_spec(name)]
    if missing:
        print(
            f"Trained. Without {', '.join(missing)} it cannot be evaluated here: carry {chosen.output}/model"
        )
        print(f"and {chosen.output}/facts.* to where vitmae-search is installed, and run the same command.")
        return
    from benchmarks.compare_with_bundled import compare_with_bundled

    if not compare_with_bundled(chosen, link_photos(chosen), out_of_time):
        sys.exit(_stopped("stopped before all was evaluated"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder tiny-imagenet-200")
    parser.add_argument(
        "--cifar", type=Path, required=True, help="a folder with train/ and test/, of classes"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="tiny", help="at 64 pixels")
    parser.add_argument("--epochs", type=_pair, default=(400.0, 300.0), metavar="FIRST,SECOND")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--accumulate", type=int, default=1, help="rounds a batch, for less memory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, help="stop after these, with a checkpoint")
    parser.add_argument("--limit", type=int, help="photos of each set, to try the command out")
    return parser.parse_args()


def _pair(text: str) -> tuple[float, float]:
    first, second = map(float, text.split(","))
    return first, second


def _stopped(what: str) -> int:
    print(f"{what}; the same command goes on", file=sys.stderr)
    return INTERRUPTED


def train(chosen: argparse.Namespace, out_of_time: Callable[[], bool]) -> bool:
    """Train both stages and export the model.

    Args:
        chosen: The options of the command line.
        out_of_time: Whether to stop.

    Returns:
        Whether everything is done.
    """
    photos = link_photos(chosen)
    folders = dict(zip(STAGES, (photos / "tiny", photos), strict=True))
    for number, stage in enumerate(STAGES):
        place = chosen.output / stage
        if _finished(place):
            continue
        second = {**CONTRASTIVE_RECIPE, "init": os.fspath(chosen.output / STAGES[0])} if number else {}
        options = {
            **RECIPE,
            **second,
            "epochs": chosen.epochs[number],
            "batch_size": chosen.batch_size,
            "accumulate": chosen.accumulate,
            "device": chosen.device,
        }
        report = pretrain(
            folders[stage],
            place,
            model=None if number else architecture(chosen.size),
            options=options,
            on_packed=_print_packed,
            on_compiled=lambda seconds: print(f"compiling took {seconds:.0f} s", flush=True),
            on_progress=_ProgressPrinter(stage),
            stop=out_of_time,
        )
        if report.interrupted:
            return False
    export(chosen)
    return True


def architecture(size: str) -> dict[str, Any]:
    """The architecture of `pretrain --model SIZE`, for images of 64 pixels in patches of 8."""
    return {**PRESETS[size], "image_size": 64, "patch_size": 8, "norm_pix_loss": True}


def link_photos(chosen: argparse.Namespace) -> Path:
    """Make a folder of links to the photos: `tiny`, and a random half of CIFAR-10's as `cifar`."""
    folder: Path = chosen.output / "mix"
    data, cifar = (place.absolute() / "train" for place in (chosen.data, chosen.cifar))
    for source, name, most in ((data, "tiny", 10**9), (cifar, "cifar", CIFAR_PHOTOS)):
        if (folder / name).exists():
            continue
        files = [stamp.path for stamp in list_photos(source)]
        half_made = folder / f".{name}"
        for path in map(Path, random.Random(0).sample(files, min(most, chosen.limit or most, len(files)))):
            link = half_made / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        half_made.rename(folder / name)
    return folder


def export(chosen: argparse.Namespace) -> None:
    """Write OUTPUT/model in half precision with its plots, and facts about the training for its card."""
    run, place = chosen.output / STAGES[-1], chosen.output / "model"
    model = ViTMAEForPreTraining.from_pretrained(run)
    model.save_pretrained(place, dtype=torch.float16, max_shard_size=SHARD_BYTES)
    ViTImageProcessor.from_pretrained(run).save_pretrained(place)
    for name in PICTURES:
        shutil.copy(run / name, place / name)
    facts = training_facts(chosen, sum(parameter.numel() for parameter in model.parameters()))
    (chosen.output / "facts.md").write_text(_markdown(facts), "utf-8")
    (chosen.output / "facts.json").write_text(
        json.dumps(facts, indent=1), "utf-8"
    )  # last, because it marks the end


def training_facts(chosen: argparse.Namespace, parameters: int) -> dict[str, Any]:
    """Facts about the training for the card.

    Args:
        chosen: The options of the command line.
        parameters: The model's number of parameters.
    """
    return {
        "size": chosen.size,
        "parameters": parameters,
        "batch_size": chosen.batch_size,
        "machine": describe_machine("torch"),
        "device": _device(chosen.device),
        "stages": {stage: _stage(chosen.output / stage) for stage in STAGES},
    }


def _stage(place: Path) -> dict[str, Any]:
    report, run = (json.loads((place / name).read_bytes()) for name in ("report.json", "run.json"))
    lines = PretrainLog(place / "log.jsonl").read()
    kept = ("photos", "failed", "epochs", "steps", "seconds", "loss")
    ends = {"first": lines[0], "last": lines[-1]} if lines else {}
    losses = {
        f"{when} {name}": getattr(line, name)
        for when, line in ends.items()
        for name in ("loss", "reconstruction", "contrastive")
        if getattr(line, name) is not None
    }
    speed = report["epochs"] * report["photos"] / max(report["seconds"], 1e-9)
    options = {name: run["options"][name] for name in ("precision", "attention", "learning_rate", "seed")}
    return {**{name: report[name] for name in kept}, "images_per_second": speed, **losses, **options}


def _device(name: str) -> str:
    from vitmae_search.vitmae import choose_device

    device = choose_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _markdown(facts: dict[str, Any]) -> str:
    stages = facts["stages"]
    rows = list(dict.fromkeys(name for stage in stages.values() for name in stage))
    body = [[name, *(_cell(stage.get(name, "–")) for stage in stages.values())] for name in rows]
    head = f"{facts['size']}, {facts['parameters']:,} parameters, batches of {facts['batch_size']}; on "
    return f"{head}{facts['device']} ({facts['machine']})\n\n{markdown_table(['', *stages], body)}\n"


def _cell(value: object) -> str:
    return format_figure(value) if isinstance(value, float) and abs(value) >= 1e-3 else str(value)


def _finished(place: Path) -> bool:
    report = place / "report.json"
    return report.exists() and not json.loads(report.read_bytes())["interrupted"]


def _print_packed(done: int, total: int) -> None:
    if done % 10_240 == 0 or done == total:
        print(f"packed {done} of {total} photos", flush=True)


class _ProgressPrinter:
    """Prints the progress every 20 seconds."""

    def __init__(self, stage: str) -> None:
        self._stage, self._last = stage, float("-inf")

    def __call__(self, moment: PretrainProgress) -> None:
        if moment.fraction < 1 and time.monotonic() - self._last < 20:
            return
        self._last = time.monotonic()
        line = moment.line
        print(
            f"{self._stage}: epoch {line.epoch:.1f}, loss {line.loss:.4f}, "
            f"{line.images_per_second:.0f} images/s, {moment.remaining / 60:.1f} minutes left",
            flush=True,
        )


if __name__ == "__main__":
    main()
