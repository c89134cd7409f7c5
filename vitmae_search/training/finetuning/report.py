"""The log, progress, plots and report of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.training.log import JsonLinesLog
from vitmae_search.training.plots import draw_curves

LOG_FILE = "log.jsonl"
LOSS_PICTURE = "loss.png"
ACCURACY_PICTURE = "accuracy.png"
CONFUSION_PICTURE = "confusion.png"


@dataclass(frozen=True, slots=True)
class EpochLine:
    """One epoch.

    Attributes:
        step: Steps done.
        epoch: Passes over the training photos.
        loss: Mean over the epoch's steps, with smoothed and mixed targets where the recipe has them.
        val_loss: Cross-entropy of the validation photos.
        accuracy: Share of the validation photos that are classified correctly, 0 to 1.
        rate: The greatest learning rate of the last step.
        seconds: Training time over all resumes.
    """

    step: int
    epoch: float
    loss: float
    val_loss: float
    accuracy: float
    rate: float
    seconds: float


class EpochLog(JsonLinesLog[EpochLine]):
    """The log of a fine-tuning run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, EpochLine)


@dataclass(frozen=True, slots=True)
class FinetuneProgress:
    """The state of a run after a step.

    Attributes:
        fraction: How far the run is, 0 to 1.
        epoch: Passes over the training photos.
        loss: The last step's.
        accuracy: The last epoch's; None before the first.
        remaining: Seconds left at the pace so far.
    """

    fraction: float
    epoch: float
    loss: float
    accuracy: float | None
    remaining: float


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """The result of a run.

    Attributes:
        output: The run's folder.
        mode: "probe" or "full".
        pooling: "cls" or "mean".
        model: The checkpoint that the run started from.
        classes: Number of classes.
        photos: Photos trained on.
        validation_photos: Photos validated on.
        failed: Photos that could not be decoded.
        unlabelled: Photos without a class.
        not_validated: Classes without a photo to validate on.
        steps: Steps done.
        epochs: Passes over the training photos.
        accuracy: Of the epoch whose model was kept, the best one on the validation photos, so slightly
            optimistic; None before the first.
        best_epoch: That epoch.
        last_accuracy: Of the last epoch.
        seconds: Training time over all resumes.
        interrupted: The run stopped early and can be resumed.
    """

    output: str
    mode: str
    pooling: str
    model: str
    classes: int
    photos: int
    validation_photos: int
    failed: int
    unlabelled: int
    not_validated: list[str]
    steps: int
    epochs: float
    accuracy: float | None
    best_epoch: float | None
    last_accuracy: float | None
    seconds: float
    interrupted: bool


def draw_log(lines: Sequence[EpochLine], folder: Path) -> None:
    """Draw losses and accuracy by epoch.

    Args:
        lines: The log.
        folder: Where to write the PNG files.
    """
    losses = {
        "training": [(line.epoch, line.loss) for line in lines],
        "validation": [(line.epoch, line.val_loss) for line in lines],
    }
    draw_curves(losses, folder / LOSS_PICTURE, "fine-tuning loss")
    accuracy = {"validation": [(line.epoch, 100 * line.accuracy) for line in lines]}
    draw_curves(accuracy, folder / ACCURACY_PICTURE, "accuracy, %")
