"""The card's command: Tiny-ImageNet's own list becomes classes, and `evaluate` does the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.evaluate_bundled_model import main
from benchmarks.sample_retrieval import labels
from vitmae_search.evaluation import find_labelled_photos


def test_the_data_sets_own_list_has_the_classes(
    tmp_path: Path,
    write_colour: Callable[[Path, str, int], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines = []
    for seed in range(6):
        colour = ("red", "blue")[seed % 2]
        write_colour(tmp_path / f"val/images/val_{seed}.JPEG", colour, seed)
        lines.append(f"val_{seed}.JPEG\tn0{seed % 2}\t0\t0\t62\t62\n")
    (tmp_path / "val/val_annotations.txt").write_text("".join(lines))
    words = ["--data", str(tmp_path), "--instances", "0", "--json"]
    monkeypatch.setattr(sys, "argv", ["evaluate_bundled_model", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["photos"], found["classes"]) == (6, 2)
    assert found["methods"][0]["name"].startswith("vitmae-")


def test_a_sample_belongs_to_its_photo(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> None:
    for seed, name in enumerate(("cat-00-original", "cat-03-tilt", "dog-00-original")):
        write_photo(tmp_path / f"{name}.jpg", seed)
    assert find_labelled_photos(tmp_path, labels(tmp_path)).labels == ("cat", "cat", "dog")
