"""The fine-tuning loop: steps, validation, the best model, and resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.training.finetuning.confusion import confusion_matrix, draw_confusion
from vitmae_search.training.finetuning.data import LabelledPhotos
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.report import (
    CONFUSION_PICTURE,
    LOG_FILE,
    EpochLine,
    EpochLog,
    FinetuneProgress,
    draw_log,
)
from vitmae_search.training.finetuning.task import BatchSampler, Task
from vitmae_search.training.optim import set_learning_rate, training_progress, warmup_cosine
from vitmae_search.training.run_folder import load_state, replace_files, save_state
from vitmae_search.vitmae import ViTImageProcessor


@dataclass(frozen=True, slots=True)
class FinetuneState:
    """What a resume needs to continue a fine-tuning run exactly.

    Attributes:
        step: Steps done.
        seconds: Training time so far.
        losses: Of the steps of the current epoch.
        best: (epoch, accuracy) of the model in the folder; None before the first epoch.
        signature: Of the photos, their labels and the initial weights.
        model: State dict of the trained module.
        optimizer: The optimiser's state dict.
    """

    step: int
    seconds: float
    losses: list[float]
    best: tuple[float, float] | None
    signature: str
    model: dict[str, Any]
    optimizer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _BestModel:
    """The weights of a model that is better than the one in the folder, and its validation predictions."""

    state: dict[str, Any]
    predicted: Tensor


class FinetuneLoop:
    """One run in one folder, which holds the best model so far, the log, plots and the state.

    If there is a state, the run resumes from it, and ends exactly as without the interruption.

    Args:
        task: The mode.
        processor: Saved with the model.
        photos: The data set.
        output: The run's folder.
        options: The run's options.
        signature: Of the photos, their labels and the initial weights.
        device: The device that trains.

    Raises:
        TrainingError: The state has another signature.
    """

    def __init__(
        self,
        task: Task,
        processor: ViTImageProcessor,
        photos: LabelledPhotos,
        output: Path,
        options: FinetuneOptions,
        *,
        signature: str,
        device: torch.device,
    ) -> None:
        self._task, self._processor, self._photos = task, processor, photos
        self._output, self._options, self._signature = output, options, signature
        self._devices = [device] if device.type == "cuda" else []
        self._steps_per_epoch = BatchSampler(photos, options).steps_per_epoch
        self._parameters = [p for group in task.optimizer.param_groups for p in group["params"]]
        self._log = EpochLog(output / LOG_FILE)
        self.step, self.seconds = 0, 0.0
        self._losses: list[float] = []
        self.best: tuple[float, float] | None = None
        self._unsaved: _BestModel | None = None
        self.accuracy: float | None = None
        self._restore()

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return max(1, math.ceil(self._options.epochs * self._steps_per_epoch))

    @property
    def epoch(self) -> float:
        """Passes over the training photos."""
        return round(self.step / self._steps_per_epoch, 4)

    def run(
        self, *, on_progress: Callable[[FinetuneProgress], None] | None, stop: Callable[[], bool]
    ) -> bool:
        """Train until the last step or until `stop` returns true, and save.

        Args:
            on_progress: Called after every step.
            stop: Asked before every step.

        Returns:
            Whether the run is finished.

        Raises:
            TrainingError: A loss or gradient is not finite; the best model so far is kept.
        """
        saved_at, start_seconds, start_step = self.seconds, self.seconds, self.step
        with torch.random.fork_rng(self._devices):
            while self.step < self.total_steps and not stop():
                started = time.perf_counter()
                self._losses.append(self._train_step())
                self.step += 1
                loss = self._losses[-1]
                if self.step % self._steps_per_epoch == 0 or self.step == self.total_steps:
                    self._end_epoch(started)
                self.seconds += time.perf_counter() - started
                if self.seconds - saved_at >= self._options.save_minutes * 60:
                    self.save()
                    saved_at = self.seconds
                if on_progress is not None:
                    pace = (self.seconds - start_seconds) / (self.step - start_step)
                    remaining = pace * (self.total_steps - self.step)
                    fraction = self.step / self.total_steps
                    on_progress(FinetuneProgress(fraction, self.epoch, loss, self.accuracy, remaining))
        self.save()
        return self.step >= self.total_steps

    def save(self) -> None:
        """Write the best model if there is a new one, then the state, then the plots."""
        self._save_best()
        save_state(
            self._output,
            FinetuneState(
                step=self.step,
                seconds=self.seconds,
                losses=self._losses,
                best=self.best,
                signature=self._signature,
                model=self._task.trained.state_dict(),
                optimizer=self._task.optimizer.state_dict(),
            ),
        )
        lines = self._log.read()
        if lines:
            with replace_files(self._output) as folder:
                draw_log(lines, folder)

    def _save_best(self) -> None:
        if self._unsaved is None:
            return
        labels = self._photos.labels[self._photos.validation]
        names = self._photos.names
        matrix = confusion_matrix(labels, self._unsaved.predicted.numpy(), len(names))
        with replace_files(self._output) as folder:
            self._task.classifier(self._unsaved.state).save_pretrained(folder)
            self._processor.save_pretrained(folder)
            draw_confusion(matrix, names, folder / CONFUSION_PICTURE)
        self._unsaved = None

    def _train_step(self) -> float:
        """Run one step and return its loss."""
        options, optimizer = self._options, self._task.optimizer
        progress = training_progress(self.step, self.total_steps, 0.0, None)
        set_learning_rate(optimizer, options.peak_rate * warmup_cosine(progress, options.warmup))
        optimizer.zero_grad(set_to_none=True)
        loss = self._task.loss(self.step)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient_norm = nn.utils.clip_grad_norm_(self._parameters, options.clip_norm or math.inf)
        # Both in one copy from the device.
        scalars: list[float] = torch.stack([loss.detach().float(), gradient_norm.float()]).tolist()
        value, norm = scalars
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._fail(f"the loss is {value} and the gradient norm {norm} at step {self.step}")
        optimizer.step()
        return value

    def _end_epoch(self, started: float) -> None:
        """Validate, log, and keep the weights if they are the best so far."""
        logits = self._task.validate()
        labels = torch.from_numpy(self._photos.labels[self._photos.validation])
        val_loss = functional.cross_entropy(logits, labels).item()
        if not math.isfinite(val_loss):
            self._fail(f"the loss on the photos held out is {val_loss} after step {self.step}")
        predicted = logits.argmax(dim=1)
        self.accuracy = (predicted == labels).double().mean().item()
        line = EpochLine(
            step=self.step,
            epoch=self.epoch,
            loss=sum(self._losses) / len(self._losses),
            val_loss=val_loss,
            accuracy=self.accuracy,
            rate=max(group["lr"] for group in self._task.optimizer.param_groups),
            seconds=round(self.seconds + time.perf_counter() - started, 2),
        )
        self._losses = []
        self._log.append(line)
        if self.best is None or self.accuracy > self.best[1]:
            self.best = (self.epoch, self.accuracy)
            state = self._task.trained.state_dict()
            weights = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
            self._unsaved = _BestModel(weights, predicted)

    def _fail(self, reason: str) -> None:
        self._save_best()
        kept = "no model was good enough to keep" if self.best is None else "the best model so far is kept"
        raise TrainingError(
            f"{reason}: training stops. In {display_path(self._output)} {kept}; try a lower learning rate."
        )

    def _restore(self) -> None:
        state = load_state(FinetuneState, self._output)
        if state is None:
            self._log.truncate(0)
            return
        if state.signature != self._signature:
            raise TrainingError(
                f"the run in {display_path(self._output)} had other photos, labels or starting weights, or "
                "they have changed since: choose another output folder"
            )
        self._task.trained.load_state_dict(state.model)
        self._task.optimizer.load_state_dict(state.optimizer)
        self.step, self.seconds = state.step, state.seconds
        self._losses, self.best = list(state.losses), state.best
        self._log.truncate(self.step)
        lines = self._log.read()
        self.accuracy = lines[-1].accuracy if lines else None
