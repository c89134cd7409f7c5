"""The confusion matrix and the curves of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vitmae_search.training.finetuning.confusion import confusion_matrix, draw_confusion
from vitmae_search.training.finetuning.report import EpochLine, draw_log


def test_the_confusion_matrix_counts_pairs_and_is_drawn(tmp_path: Path) -> None:
    labels, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    matrix = confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    draw_confusion(matrix, ["a", "b" * 80, "ü"], tmp_path / "few.png")
    many = np.eye(300, dtype=np.int64)
    draw_confusion(many, [str(i) for i in range(300)], tmp_path / "many.png")
    for name in ("few.png", "many.png"):
        with Image.open(tmp_path / name) as image:
            image.load()
            assert max(image.size) < 1600
            assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 2


def test_curves_of_one_epoch_and_of_many_are_drawn(tmp_path: Path) -> None:
    lines = [EpochLine(i, float(i), 2.0 / i, 2.2 / i, i / 10, 0.1, 1.0) for i in range(1, 8)]
    draw_log(lines[:1], tmp_path)
    one = (tmp_path / "loss.png").read_bytes()
    draw_log(lines, tmp_path)
    assert (tmp_path / "loss.png").read_bytes() != one
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
