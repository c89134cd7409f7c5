"""What a fine-tuning tells: a line an epoch, moments, pictures, and what it came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.training.log import LineLog
from vitmae_search.training.plots import draw_curves

LOG_FILE = "log.jsonl"
LOSS_PICTURE = "loss.png"
ACCURACY_PICTURE = "accuracy.png"
CONFUSION_PICTURE = "confusion.png"


@dataclass(frozen=True, slots=True)
class EpochLine:
    """One epoch. `loss` is the mean over its steps, with smoothed and mixed targets where there are any.

    `val_loss` is the cross-entropy and `accuracy` the share (0 to 1) of the photos held out that are
    recognised; `rate` is the last step's greatest learning rate, `seconds` training over all resumes.
    """

    step: int
    epoch: float
    loss: float
    val_loss: float
    accuracy: float
    rate: float
    seconds: float


class EpochLog(LineLog[EpochLine]):
    """The log of a fine-tuning."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, EpochLine)


@dataclass(frozen=True, slots=True)
class FinetuneProgress:
    """A moment. `share` is 0 to 1, `remaining` seconds; the last step's loss, the last epoch's accuracy."""

    share: float
    epoch: float
    loss: float
    accuracy: float | None
    remaining: float


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """What a run came to. `interrupted` says that it stopped early and can go on.

    `accuracy` is that of the epoch whose model was kept, the best one on the photos held out (so a little
    flattering), and `last_accuracy` the last epoch's; both None before the first. `not_validated` are
    classes of which no photo was held out; `unlabelled` photos lay in no class's folder, `failed` could
    not be read.
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
    """Losses and accuracy by epoch, as PNGs in `folder`."""
    losses = {
        "training": [(line.epoch, line.loss) for line in lines],
        "validation": [(line.epoch, line.val_loss) for line in lines],
    }
    draw_curves(losses, folder / LOSS_PICTURE, "fine-tuning loss")
    accuracy = {"validation": [(line.epoch, 100 * line.accuracy) for line in lines]}
    draw_curves(accuracy, folder / ACCURACY_PICTURE, "accuracy, %")
