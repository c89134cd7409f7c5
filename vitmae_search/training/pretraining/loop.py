"""The pretraining loop: steps, the log, checkpoints, and resuming from them."""

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
from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.log import LogLine, PretrainLog
from vitmae_search.training.optim import training_progress, warmup_cosine
from vitmae_search.training.plots import draw_panels, draw_sheet
from vitmae_search.training.pretraining.batches import BatchLoader
from vitmae_search.training.pretraining.film_strip import FilmStripWriter
from vitmae_search.training.pretraining.grad_cache import PendingStep, StepResult, mean_result
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos
from vitmae_search.training.pretraining.trainer import PretrainState, Trainer
from vitmae_search.training.run_folder import load_state, replace_files, save_state
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, reconstruct

LOG_FILE = "log.jsonl"
LOSS_PICTURE = "loss.png"
RECONSTRUCTIONS_PICTURE = "reconstructions.png"
_SHEET_PHOTOS = 8
"""Photos whose reconstructions are drawn, always the same ones."""


@dataclass(frozen=True, slots=True)
class PretrainProgress:
    """The state of a run when a line was logged.

    Attributes:
        line: The line.
        total_steps: Steps of the whole run.
        fraction: How far the run is, 0 to 1.
        remaining: Seconds left at the pace so far.
    """

    line: LogLine
    total_steps: int
    fraction: float
    remaining: float


@dataclass(frozen=True, slots=True)
class PretrainReport:
    """The result of a run.

    Attributes:
        output: The run's folder.
        steps: Steps done.
        epochs: Passes over the photos.
        loss: Mean of the last logged interval; None before the first.
        seconds: Training time over all resumes.
        photos: Photos trained on.
        failed: Photos that could not be decoded.
        interrupted: The run stopped early and can be resumed.
    """

    output: str
    steps: int
    epochs: float
    loss: float | None
    seconds: float
    photos: int
    failed: int
    interrupted: bool


class PretrainLoop:
    """One run in one folder, which is also a checkpoint that `from_pretrained` loads.

    The folder holds config.json, preprocessor_config.json and model.safetensors, the log, plots, and the
    state. If there is a state, the run resumes from it.

    Args:
        model: Trained in place.
        processor: Saved with the model; its mean and deviation normalise the training images.
        photos: The training data.
        output: The run's folder.
        options: The run's options.
        distributed: The processes that train together.

    Raises:
        TrainingError: The state belongs to other photos.
    """

    def __init__(
        self,
        model: ViTMAEForPreTraining,
        processor: ViTImageProcessor,
        photos: Photos,
        output: Path,
        options: PretrainOptions,
        distributed: DistributedContext,
    ) -> None:
        self._photos, self._output, self._options = photos, output, options
        self._processor = processor
        self._distributed = distributed
        batches = BatchLoader(
            photos,
            options,
            image_size=model.config.image_shape[0],
            num_patches=model.config.num_patches,
            normalize=Normalize(tuple(processor.image_mean), tuple(processor.image_std)),
            distributed=distributed,
        )
        self._trainer = Trainer(model, batches, options, distributed)
        self._log = PretrainLog(output / LOG_FILE)
        self._step, self._seconds = 0, 0.0
        self._in_flight: list[PendingStep] = []  # results still on the device
        self._unlogged: list[StepResult] = []  # results since the last line of the log
        self._last_loss: float | None = None
        self._film: FilmStripWriter | None = None
        if distributed.is_main and options.film != "none":
            self._film = FilmStripWriter(output, photos, processor, model.config.image_shape[0], options)
        self._restore()
        if self._film is not None:
            self._film.go_on(self._step, self.progress)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, if time does not end it earlier."""
        return max(1, math.ceil(self._options.epochs * len(self._photos) / self._options.batch_size))

    @property
    def progress(self) -> float:
        """How far the run is, 0 to 1."""
        minutes = self._options.max_minutes
        limit = None if minutes is None else minutes * 60
        return training_progress(self._step, self.total_steps, self._seconds, limit)

    def run(
        self,
        *,
        on_compiled: Callable[[float], None] | None = None,
        on_progress: Callable[[PretrainProgress], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> PretrainReport:
        """Train until the schedule ends or `stop` returns true, and save a checkpoint. Call once.

        Args:
            on_compiled: Called with the seconds that compiling took.
            on_progress: Called after each line of the log.
            stop: Asked after every step.

        Raises:
            TrainingError: A loss or gradient is not finite; the last checkpoint stays.
            DeviceError: A batch does not fit into the device's memory; the last checkpoint stays.
        """
        try:
            if self._trainer.compiled and self.progress < 1:
                self._compile(on_compiled)
            return self._train(on_progress, stop)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"batches of {self._options.batch_size} photos do not fit into the device's memory: with "
                "--accumulate 2, or 4, or 8, each is computed in rounds, to the same result"
            ) from error
        finally:
            self._trainer.close()

    def _compile(self, on_compiled: Callable[[float], None] | None) -> None:
        """Compile before the training clock starts."""
        with self._forked_rng():
            seconds = self._trainer.compile(self._step)
        if on_compiled is not None and self._distributed.is_main:
            on_compiled(seconds)

    def _forked_rng(self) -> AbstractContextManager[None]:
        device = self._distributed.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])

    def _train(
        self, on_progress: Callable[[PretrainProgress], None] | None, stop: Callable[[], bool]
    ) -> PretrainReport:
        saved_at, logged_at = self._seconds, self._seconds
        interrupted = False
        with self._forked_rng():
            self._film_moment()
            while self.progress < 1 and not interrupted:
                started = time.perf_counter()
                self._train_step()
                self._seconds += self._mean_over_processes(time.perf_counter() - started)
                self._film_moment()
                if self._step % self._options.log_every == 0:
                    self._fetch_results()
                    self._write_line(logged_at, on_progress)
                    logged_at = self._seconds
                if self._seconds - saved_at >= self._options.save_minutes * 60:
                    self.save()
                    saved_at = self._seconds
                interrupted = self._mean_over_processes(stop()) > 0
        self.save()
        return self._report(interrupted and self.progress < 1)

    def save(self) -> None:
        """Write the state, the model and the plots; each file is replaced atomically.

        Raises:
            TrainingError: A loss or gradient is not finite; nothing is written.
        """
        self._fetch_results()
        if self._distributed.is_main:
            self._write_checkpoint()
        self._distributed.barrier()

    def _write_checkpoint(self) -> None:
        save_state(
            self._output,
            PretrainState(
                step=self._step,
                seconds=self._seconds,
                pending=[result.to_tuple() for result in self._unlogged],
                signature=self._photos.signature,
                **self._trainer.state(),
            ),
        )
        with replace_files(self._output) as folder:
            self._trainer.checkpoint_model.save_pretrained(folder)
            self._processor.save_pretrained(folder)
            draw_panels(self._log.curves(), folder / LOSS_PICTURE, "pretraining loss")
            self._draw_reconstructions(folder / RECONSTRUCTIONS_PICTURE)

    def _draw_reconstructions(self, path: Path) -> None:
        """Original, masked, prediction, and prediction with the visible patches pasted in; a row a photo."""
        rows = np.unique(np.linspace(0, len(self._photos) - 1, _SHEET_PHOTOS).astype(int))
        model = self._trainer.checkpoint_model
        with self._eager():
            results = [
                reconstruct(model, self._processor, self._photos.image(row), seed=int(row)) for row in rows
            ]
        draw_sheet([(r.original, r.masked, r.reconstruction, r.pasted) for r in results], path, zoom=2)

    def _eager(self) -> AbstractContextManager[None]:
        """Inside, nothing is compiled: a batch of one would otherwise be compiled for."""
        return torch.compiler.set_stance("force_eager") if self._trainer.compiled else nullcontext()

    def _film_moment(self) -> None:
        """Reconstruct the photos of the film strip, where it is time for it. The clock does not run.

        The main process decides and writes, but all fetch: fetching has collectives.
        """
        if self._options.film == "none":
            return
        due = self._film is not None and self._film.is_due(self._step, self.progress)
        if not self._mean_over_processes(due):
            return
        self._fetch_results()  # a model that has just been spoiled is noticed here
        if self._film is not None:
            with self._eager():
                self._film.add(self._trainer.checkpoint_model, self._step, self._epochs)

    def _train_step(self) -> None:
        """Run one step; on CUDA it may only be queued when this returns."""
        self._in_flight.append(self._trainer.gradient(self._step))
        self._trainer.update(self._step, warmup_cosine(self.progress, self._options.warmup))
        self._step += 1

    def _fetch_results(self) -> None:
        """Wait for the steps in flight, and check that their losses and gradients are finite."""
        if not self._in_flight:
            return
        started = time.perf_counter()
        first = self._step - len(self._in_flight)
        results, self._in_flight = self._trainer.fetch(self._in_flight), []
        self._seconds += self._mean_over_processes(time.perf_counter() - started)
        for number, result in enumerate(results, first):
            loss, norm = result.losses.loss, result.gradient_norm
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"the loss is {loss} and the gradient norm {norm} at step {number}: training stops. "
                    f"The checkpoint in {self._output} is from before; try a lower learning rate."
                )
        self._unlogged += results

    def _mean_over_processes(self, value: float) -> float:
        """One value for all processes, so that they take the same decisions."""
        return self._distributed.sum([value])[0] / self._distributed.world_size

    def _write_line(self, since: float, on_progress: Callable[[PretrainProgress], None] | None) -> None:
        images = len(self._unlogged) * self._options.batch_size
        mean = mean_result(self._unlogged)
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
        self._unlogged = []
        if not self._distributed.is_main:
            return
        self._log.append(line)
        if on_progress is not None:
            fraction = self.progress
            remaining = self._seconds / fraction * (1 - fraction)
            on_progress(PretrainProgress(line, self.total_steps, fraction, remaining))

    @property
    def _epochs(self) -> float:
        return self._step * self._options.batch_size / len(self._photos)

    def _restore(self) -> None:
        state = load_state(PretrainState, self._output)
        if state is not None and state.signature != self._photos.signature:
            raise TrainingError(
                f"the run in {self._output} was trained on other photos, or they have changed since: "
                "choose another output folder"
            )
        if self._distributed.is_main:
            self._log.truncate(0 if state is None else state.step)
        if state is None:
            return
        self._trainer.restore(state)
        self._step, self._seconds = state.step, state.seconds
        self._unlogged = [StepResult.from_tuple(values) for values in state.pending]
        lines = self._log.read()
        self._last_loss = lines[-1].loss if lines else None

    def _report(self, interrupted: bool) -> PretrainReport:
        loss = mean_result(self._unlogged).losses.loss if self._unlogged else self._last_loss
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
