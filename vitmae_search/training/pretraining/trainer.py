"""What is trained, and how one update is made of a batch.

The running mean of a model's weights, which is what a run with `ema` saves.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vitmae_search.errors import TrainingError
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.devices import compiles, computing
from vitmae_search.training.distributed import Processes
from vitmae_search.training.optim import adamw, set_rate
from vitmae_search.training.pretraining.batches import Batch, Batches
from vitmae_search.training.pretraining.cpu_replicas import Replicas, check_replicas
from vitmae_search.training.pretraining.grad_cache import BatchGradient, Step, Unread
from vitmae_search.training.pretraining.losses import Objective, Outcome
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.run_folder import RunState
from vitmae_search.vitmae import ViTMAEForPreTraining
from vitmae_search.vitmae.layers import compile_layers

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """An exponential moving average (EMA) of the parameters of `model`, as a model of its own.

    After update t = 0, 1, … the old average counts min(decay, (1 + t) / (10 + t)), so that the weights of
    the beginning are soon forgotten, as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: M, updates: int) -> None:
        """`updates` came before this one."""
        new = 1 - min(self._decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), new)


log = logging.getLogger(__name__)


class Trainer:
    """A model with its objective and its optimiser. `model` is trained in place."""

    def __init__(
        self, model: ViTMAEForPreTraining, batches: Batches, options: PretrainOptions, processes: Processes
    ) -> None:
        self._options, self._batches, self._processes = options, batches, processes
        self._device = processes.device
        check_replicas(options, model.config, self._device)
        self._model = model.to(self._device).train()
        self._model.set_attn_implementation("sdpa" if options.attention == "sdpa" else "eager")
        if options.checkpoint_activations:
            self._model.gradient_checkpointing_enable()
        self._objective = Objective(self._model, options).to(self._device).train()
        self._average = Average(self._model, options.ema) if options.ema else None
        self.compiled = compiles(self._device) if options.compiled is None else options.compiled
        if self.compiled:
            compile_layers(self._model)
        self._replicas = Replicas(self._objective, options.replicas)
        self._gradient = BatchGradient(self._replicas, self._forward, options, processes)
        self._optimizer = adamw(
            self._objective,
            rate=options.peak_rate,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
        )
        self._trained = [p for group in self._optimizer.param_groups for p in group["params"]]

    @property
    def kept(self) -> ViTMAEForPreTraining:
        """What the checkpoint holds: the model, or the average of its weights."""
        return self._model if self._average is None else self._average.model

    def compile(self, step: int) -> float:
        """Compile what step `step` needs, by computing its gradient for nothing: the seconds that it took.

        Where that cannot be done here, raises `TrainingError` if it was asked for; else the log says so, and
        the layers stay as they are.
        """
        from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

        started = time.perf_counter()
        try:
            self.gradient(step)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            asked = self._options.compiled is not None
            if asked and not isinstance(error, TorchDynamoException):
                raise
            reason = " ".join(str(error).split("\n")[:2]).strip()
            if asked:
                raise TrainingError(
                    f"the model cannot be compiled here ({reason}): leave --compile out"
                ) from error
            log.warning("the model is not compiled, so each step takes longer: %s", reason)
            compile_layers(self._model, None)
        return time.perf_counter() - started

    def gradient(self, step: int) -> Unread:
        """What step `step` comes to, for `read`; its gradient is left for `update`."""
        batch = self._batches.at(step)
        seed = step_seed(self._options.seed, step)
        torch.manual_seed(seed + self._processes.index)  # for dropout, where the model has any
        losses = self._gradient(batch)
        return losses._replace(gradient_norm=self._clip())

    def read(self, unread: Sequence[Unread]) -> list[Step]:
        """What these steps came to; waits until the device has done them."""
        return self._gradient.read(unread)

    def _clip(self) -> Tensor:
        """The gradient's norm before it was clipped, if it is to be."""
        norm = nn.utils.get_total_norm([p.grad for p in self._trained if p.grad is not None])
        if self._options.clip_norm:
            nn.utils.clip_grads_with_norm_(self._trained, self._options.clip_norm, norm)
        return norm

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        return float(self._optimizer.param_groups[0]["lr"])

    def update(self, step: int, rate_factor: float) -> None:
        """Move the weights along the gradient of step `step`, at this share of the peak rate."""
        set_rate(self._optimizer, self._options.peak_rate * rate_factor)
        self._optimizer.step()
        if self._average is not None:
            self._average.update(self._model, step)

    def state(self) -> dict[str, Any]:
        """The fields of `RunState` that are about weights."""
        projector, average = self._objective.projector, self._average
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "projector": None if projector is None else projector.state_dict(),
            "average": None if average is None else average.model.state_dict(),
        }

    def restore(self, state: RunState) -> None:
        """Go back to what `state` was called on."""
        self._model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        if self._objective.projector is not None and state.projector is not None:
            self._objective.projector.load_state_dict(state.projector)
        if self._average is not None and state.average is not None:
            self._average.model.load_state_dict(state.average)

    def close(self) -> None:
        """End the threads and processes that helped."""
        self._replicas.close()
        self._batches.close()

    def _forward(self, model: Objective, part: Batch) -> Outcome:
        pixels, noise = self._batches.model_input(part)
        with computing(self._device, self._options.precision):
            outcome: Outcome = model(pixels, noise, len(part.views))
        return outcome
