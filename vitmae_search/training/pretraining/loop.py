"""Masked-autoencoder pretraining: the loop, its checkpoints, and how it goes on after them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vitmae_search.errors import DeviceError, TrainingError
from vitmae_search.training.data.sampler import Normalisation
from vitmae_search.training.distributed import Processes
from vitmae_search.training.log import LogLine, RunLog
from vitmae_search.training.optim import progress_at, rate_factor
from vitmae_search.training.plots import draw_panels, draw_sheet
from vitmae_search.training.pretraining.batches import Batches
from vitmae_search.training.pretraining.grad_cache import Step, Unread, mean_step
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos
from vitmae_search.training.pretraining.trainer import Trainer
from vitmae_search.training.run_folder import RunState, load_state, replace_files, save_state
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, reconstruct

LOG_FILE = "log.jsonl"
LOSS_PICTURE = "loss.png"
RECONSTRUCTIONS_PICTURE = "reconstructions.png"
_PICTURED = 8  # photos whose reconstructions are drawn, the same ones each time


@dataclass(frozen=True, slots=True)
class PretrainProgress:
    """A moment of the training. `share` is 0 to 1; `remaining` and `seconds` are seconds."""

    line: LogLine
    total_steps: int
    share: float
    remaining: float


@dataclass(frozen=True, slots=True)
class PretrainReport:
    """What a run came to. `interrupted` says that it stopped early and can go on."""

    output: str
    steps: int
    epochs: float
    loss: float | None
    seconds: float
    photos: int
    failed: int
    interrupted: bool


class Pretraining:
    """One run in one folder, which is also a checkpoint that `from_pretrained` loads.

    The folder holds config.json, preprocessor_config.json and model.safetensors, the log, pictures, and
    `state.pt`. Where there is a state, the run goes on from it. `model` is trained in place.
    Raises `TrainingError` if the state belongs to other photos.
    """

    def __init__(
        self,
        model: ViTMAEForPreTraining,
        processor: ViTImageProcessor,
        photos: Photos,
        output: Path,
        options: PretrainOptions,
        processes: Processes,
    ) -> None:
        self._photos, self._output, self._options = photos, output, options
        self._processor = processor
        self._processes = processes
        batches = Batches(
            photos,
            options,
            image_size=model.config.image_shape[0],
            num_patches=model.config.num_patches,
            normalise=Normalisation(tuple(processor.image_mean), tuple(processor.image_std)),
            processes=processes,
        )
        self._trainer = Trainer(model, batches, options, processes)
        self._log = RunLog(output / LOG_FILE)
        self._step, self._seconds = 0, 0.0
        self._pending: list[Step] = []
        self._unread: list[Unread] = []
        self._last_loss: float | None = None
        self._restore()

    @property
    def total_steps(self) -> int:
        return max(1, math.ceil(self._options.epochs * len(self._photos) / self._options.batch_size))

    @property
    def progress(self) -> float:
        """0 to 1; at 1 the training is over."""
        minutes = self._options.max_minutes
        limit = None if minutes is None else minutes * 60
        return progress_at(self._step, self.total_steps, self._seconds, limit)

    def run(
        self,
        *,
        on_compiled: Callable[[float], None] | None = None,
        on_progress: Callable[[PretrainProgress], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> PretrainReport:
        """Train until the schedule ends or `stop` says so, and leave a checkpoint either way. Runs once.

        Raises `TrainingError` for a loss or gradient that is not finite, `DeviceError` where a batch does not
        fit into the device's memory; the last checkpoint stays.
        """
        try:
            if self._trainer.compiled and self.progress < 1:
                self._compile(on_compiled)
            return self._run(on_progress, stop)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"batches of {self._options.batch_size} photos do not fit into the device's memory: with "
                "--accumulate 2, or 4, or 8, each is computed in rounds, to the same result"
            ) from error
        finally:
            self._trainer.close()

    def _compile(self, on_compiled: Callable[[float], None] | None) -> None:
        """Before the training and its clock start."""
        with self._own_randomness():
            seconds = self._trainer.compile(self._step)
        if on_compiled is not None and self._processes.main:
            on_compiled(seconds)

    def _own_randomness(self) -> AbstractContextManager[None]:
        device = self._processes.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])

    def _run(
        self, on_progress: Callable[[PretrainProgress], None] | None, stop: Callable[[], bool]
    ) -> PretrainReport:
        saved_at, logged_at = self._seconds, self._seconds
        interrupted = False
        with self._own_randomness():
            while self.progress < 1 and not interrupted:
                started = time.perf_counter()
                self._train_step()
                self._seconds += self._agreed(time.perf_counter() - started)
                if self._step % self._options.log_every == 0:
                    self._read()
                    self._write_line(logged_at, on_progress)
                    logged_at = self._seconds
                if self._seconds - saved_at >= self._options.save_minutes * 60:
                    self.save()
                    saved_at = self._seconds
                interrupted = self._agreed(stop()) > 0
        self.save()
        return self._report(interrupted and self.progress < 1)

    def save(self) -> None:
        """Write the state, the model and the pictures; each file replaces its forerunner at once.

        Raises `TrainingError`, and writes nothing, after a loss or gradient that is not finite.
        """
        self._read()
        if self._processes.main:
            self._save()
        self._processes.wait()

    def _save(self) -> None:
        save_state(
            self._output,
            RunState(
                step=self._step,
                seconds=self._seconds,
                pending=[step.to_tuple() for step in self._pending],
                signature=self._photos.signature,
                **self._trainer.state(),
            ),
        )
        with replace_files(self._output) as folder:
            self._trainer.kept.save_pretrained(folder)
            self._processor.save_pretrained(folder)
            draw_panels(self._log.curves(), folder / LOSS_PICTURE, "pretraining loss")
            self._draw_reconstructions(folder / RECONSTRUCTIONS_PICTURE)

    def _draw_reconstructions(self, path: Path) -> None:
        """Original, masked, predicted, and predicted between the visible patches, a row a photo."""
        rows = np.unique(np.linspace(0, len(self._photos) - 1, _PICTURED).astype(int))
        plainly = torch.compiler.set_stance("force_eager") if self._trainer.compiled else nullcontext()
        with plainly:  # or a batch of one would be compiled for
            shown = [
                reconstruct(self._trainer.kept, self._processor, self._photos.picture(row), seed=int(row))
                for row in rows
            ]
        draw_sheet([(r.original, r.masked, r.reconstruction, r.pasted) for r in shown], path, zoom=2)

    def _train_step(self) -> None:
        """One update, which a GPU has perhaps only been asked for."""
        self._unread.append(self._trainer.gradient(self._step))
        self._trainer.update(self._step, rate_factor(self.progress, self._options.warmup))
        self._step += 1

    def _read(self) -> None:
        """Wait for what has been asked for, and see that its numbers are finite."""
        if not self._unread:
            return
        started = time.perf_counter()
        first = self._step - len(self._unread)
        steps, self._unread = self._trainer.read(self._unread), []
        self._seconds += self._agreed(time.perf_counter() - started)
        for number, step in enumerate(steps, first):
            loss, norm = step.losses.loss, step.gradient_norm
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"the loss is {loss} and the gradient norm {norm} at step {number}: training stops. "
                    f"The checkpoint in {self._output} is from before; try a lower learning rate."
                )
        self._pending += steps

    def _agreed(self, value: float) -> float:
        """The mean over all processes, which must go the same way."""
        return self._processes.total([value])[0] / self._processes.count

    def _write_line(self, since: float, on_progress: Callable[[PretrainProgress], None] | None) -> None:
        images = len(self._pending) * self._options.batch_size
        mean = mean_step(self._pending)
        self._last_loss = mean.losses.loss
        line = LogLine(
            step=self._step,
            epoch=round(self._epochs, 4),
            loss=mean.losses.loss,
            rate=self._trainer.rate,
            gradient_norm=mean.gradient_norm,
            seconds=round(self._seconds, 2),
            images_per_second=round(images / max(self._seconds - since, 1e-9), 1),
            reconstruction=mean.losses.reconstruction,
            contrastive=mean.losses.contrastive,
        )
        self._pending = []
        if not self._processes.main:
            return
        self._log.append(line)
        if on_progress is not None:
            share = self.progress
            remaining = self._seconds / share * (1 - share)
            on_progress(PretrainProgress(line, self.total_steps, share, remaining))

    @property
    def _epochs(self) -> float:
        return self._step * self._options.batch_size / len(self._photos)

    def _restore(self) -> None:
        state = load_state(self._output)
        if state is not None and state.signature != self._photos.signature:
            raise TrainingError(
                f"the run in {self._output} was trained on other photos, or they have changed since: "
                "choose another output folder"
            )
        if self._processes.main:
            self._log.rewind(0 if state is None else state.step)
        if state is None:
            return
        self._trainer.restore(state)
        self._step, self._seconds = state.step, state.seconds
        self._pending = [Step.of(*values) for values in state.pending]
        lines = self._log.read()
        self._last_loss = lines[-1].loss if lines else None

    def _report(self, interrupted: bool) -> PretrainReport:
        loss = mean_step(self._pending).losses.loss if self._pending else self._last_loss
        return PretrainReport(
            output=str(self._output),
            steps=self._step,
            epochs=self._epochs,
            loss=loss,
            seconds=self._seconds,
            photos=len(self._photos),
            failed=len(self._photos.failures),
            interrupted=interrupted,
        )
