"""The second half of `benchmarks.train_default`: fit the projection, evaluate, and compare."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluate_bundled_model import write_labels
from benchmarks.timing import markdown_table
from vitmae_search.bundled import DEFAULT_MODEL

POOLING = ("-o", "pooling=moments")
FIGURES = ("P@1", "P@10", "mAP@100", "20-NN")
COMPARED = ("P@10", "20-NN")


def compare_with_bundled(chosen: argparse.Namespace, photos: Path, out_of_time: Callable[[], bool]) -> bool:
    """Fit a projection, evaluate this and the bundled model, and print the comparison.

    Args:
        chosen: The options of the command line.
        photos: The folder of both sets' training images, to fit the projection on.
        out_of_time: Whether to stop.

    Returns:
        Whether everything is done.
    """
    output: Path = chosen.output
    if not (output / "adapted.json").exists():
        if out_of_time():
            return False
        adapt(chosen, photos)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, folder, words in _sets(chosen):
        for model in (os.fspath(output / "model"), DEFAULT_MODEL):
            kept = output / f"evaluation-{name}-{Path(model).name}.json"
            if not kept.exists():
                if out_of_time():
                    return False
                limit = ("--limit", str(chosen.limit)) if chosen.limit else ()
                command = ("evaluate", folder, *words, *limit, "--model", model, *POOLING, "--instances", "0")
                _vitmae_search(chosen, command, kept)
            found.setdefault(name, {})[model] = json.loads(kept.read_bytes())["methods"][0]
    text = comparison(found)
    (output / "comparison.md").write_text(text, "utf-8")
    print(text)
    return True


def adapt(chosen: argparse.Namespace, photos: Path) -> None:
    """Fit the projection as for the bundled model; it is written only if it is better than none.

    Args:
        chosen: The options of the command line.
        photos: The folder of both sets' training images.
    """
    sizes = ("--photos", "6000", "--views", "6", "--held-out", "1000")
    projection = chosen.output / "model" / "projection.safetensors"
    command = ("adapt", os.fspath(photos), "--model", os.fspath(chosen.output / "model"), *POOLING)
    method = ("--method", "discriminant", "--output", os.fspath(projection))
    _vitmae_search(chosen, (*command, *sizes, *method), chosen.output / "adapted.json")


def _sets(chosen: argparse.Namespace) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, folder and options of the evaluation sets, which neither model was trained on."""
    labels = chosen.output / "tiny-labels.csv"
    write_labels(chosen.data / "val" / "val_annotations.txt", labels)
    tiny = ("tiny-imagenet", os.fspath(chosen.data / "val"), ("--labels", os.fspath(labels)))
    return [tiny, ("cifar10", os.fspath(chosen.cifar / "test"), ())]


def _vitmae_search(chosen: argparse.Namespace, words: Sequence[str], kept: Path) -> None:
    """Run the command in a process of its own and write its JSON to `kept`. Exits if it fails."""
    common = ("--device", chosen.device, "--library", os.fspath(chosen.output / "library"), "--json")
    command = [sys.executable, "-m", "vitmae_search", *words, *common]
    print(" ".join(command[1:]), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    half = kept.with_suffix(".part")
    half.write_bytes(done.stdout)
    half.replace(kept)


def comparison(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Tables, and for each set whether the new model is better: its interval lies above the other's."""
    parts = []
    for name, methods in found.items():
        rows = [
            [method["name"], method["dimension"], *(_percent(method["neighbours"][f]) for f in FIGURES)]
            for method in methods.values()
        ]
        new, old = (method["neighbours"] for method in methods.values())
        words = [f"{figure}: {_compared(new[figure], old[figure])}" for figure in COMPARED]
        parts.append(f"### {name}\n\n{markdown_table(['', 'D', *FIGURES], rows)}\n\n{'; '.join(words)}.\n")
    return "\n".join(parts)


def _compared(new: dict[str, float], old: dict[str, float]) -> str:
    if new["low"] > old["high"]:
        return "better"
    return "worse" if new["high"] < old["low"] else "no difference that this shows"


def _percent(figure: dict[str, float]) -> str:
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:.2f} ({low:.2f}–{high:.2f})"
