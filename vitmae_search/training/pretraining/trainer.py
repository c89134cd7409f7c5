"""One training step: gradient, optimiser, and the moving average of the weights."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vitmae_search.errors import TrainingError
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.devices import precision_context, should_compile
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.optim import adamw, set_learning_rate
from vitmae_search.training.pretraining.batches import Batch, BatchLoader
from vitmae_search.training.pretraining.cpu_replicas import CPUReplicas, check_replicas
from vitmae_search.training.pretraining.grad_cache import BatchGradient, PendingStep, StepResult
from vitmae_search.training.pretraining.losses import Objective, ObjectiveOutput
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.vitmae import ViTMAEForPreTraining
from vitmae_search.vitmae.layers import compile_layers

log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """An exponential moving average of a model's parameters, as a model of its own.

    In update t = 0, 1, … the old average has the weight min(decay, (1 + t) / (10 + t)), so that the first
    weights are soon forgotten, as in TensorFlow's `ExponentialMovingAverage`.

    Args:
        model: Its weights are the initial average.
        decay: The weight of the old average, in [0, 1).
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: M, updates: int) -> None:
        """Include the current weights in the average.

        Args:
            model: The trained model.
            updates: How many updates were made before this one.
        """
        new_weight = 1 - min(self._decay, (1 + updates) / (10 + updates))
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        trained = [(mean, new) for mean, new in pairs if new.requires_grad]  # others keep even a zero's sign
        torch._foreach_lerp_([mean for mean, _ in trained], [new for _, new in trained], new_weight)


@dataclass(frozen=True, slots=True)
class PretrainState:
    """What a resume needs to continue a pretraining run exactly.

    Attributes:
        step: Steps done.
        seconds: Training time so far.
        pending: Results of steps since the last line of the log (see `StepResult.to_tuple`).
        signature: Of the photos that were trained on.
        model: The model's state dict.
        optimizer: The optimiser's state dict.
        projector: Of the contrastive loss.
        average: The state dict of the averaged weights.
    """

    step: int
    seconds: float
    pending: list[tuple[Any, ...]]
    signature: str
    model: dict[str, Any]
    optimizer: dict[str, Any]
    projector: dict[str, Any] | None = None
    average: dict[str, Any] | None = None


class Trainer:
    """A model with its objective and its optimiser.

    Args:
        model: Trained in place.
        batches: The batches of every step.
        options: The run's options.
        distributed: The processes that train together.

    Raises:
        ConfigError: The options do not suit the model or the device.
    """

    def __init__(
        self,
        model: ViTMAEForPreTraining,
        batches: BatchLoader,
        options: PretrainOptions,
        distributed: DistributedContext,
    ) -> None:
        self._options, self._batches, self._distributed = options, batches, distributed
        self._device = distributed.device
        check_replicas(options, model.config, self._device)
        self._model = model.to(self._device).train()
        if options.freeze_encoder:  # its forward pass then records no graph, and draws no dropout
            self._model.vit.eval().requires_grad_(False)
        self._model.set_attn_implementation("sdpa" if options.attention == "sdpa" else "eager")
        if options.checkpoint_activations:
            self._model.gradient_checkpointing_enable()
        self._objective = Objective(self._model, options).to(self._device).train()
        self._ema = EMA(self._model, options.ema) if options.ema else None
        self.compiled = should_compile(self._device) if options.compiled is None else options.compiled
        if self.compiled:
            compile_layers(self._model)
        self._replicas = CPUReplicas(self._objective, options.replicas)
        self._batch_gradient = BatchGradient(self._replicas, self._forward, options, distributed)
        self._optimizer = adamw(
            self._objective,
            rate=options.peak_rate,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
        )
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]

    @property
    def checkpoint_model(self) -> ViTMAEForPreTraining:
        """The model to save: the trained one, or the moving average of its weights."""
        return self._model if self._ema is None else self._ema.model

    def compile(self, step: int) -> float:
        """Compile the layers by computing the gradient of one step, which is discarded.

        Where torch cannot compile here and the option `compiled` was left open, the log says so and the
        layers stay as they are.

        Args:
            step: The step that comes next.

        Returns:
            The seconds that it took.

        Raises:
            TrainingError: Torch cannot compile here and the option `compiled` asked for it.
        """
        from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

        started = time.perf_counter()
        try:
            self.gradient(step)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            requested = self._options.compiled is not None
            if requested and not isinstance(error, TorchDynamoException):
                raise
            reason = " ".join(str(error).split("\n")[:2]).strip()
            if requested:
                raise TrainingError(
                    f"the model cannot be compiled here ({reason}): leave --compile out"
                ) from error
            log.warning("the model is not compiled, so each step takes longer: %s", reason)
            compile_layers(self._model, None)
        return time.perf_counter() - started

    def gradient(self, step: int) -> PendingStep:
        """Compute the gradient of step `step` for `update`; asynchronous on CUDA (see `fetch`)."""
        batch = self._batches.at(step)
        seed = step_seed(self._options.seed, step)
        torch.manual_seed(seed + self._distributed.rank)  # for dropout, where the model has any
        pending = self._batch_gradient(batch)
        return pending._replace(gradient_norm=self._clip_gradient())

    def fetch(self, steps: Sequence[PendingStep]) -> list[StepResult]:
        """The results of these steps; waits for the device."""
        return self._batch_gradient.fetch(steps)

    def _clip_gradient(self) -> Tensor:
        """Clip the gradient if the options say so, and return its norm before that."""
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if self._options.clip_norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self._options.clip_norm, norm)
        return norm

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        return float(self._optimizer.param_groups[0]["lr"])

    def update(self, step: int, rate_factor: float) -> None:
        """Run one optimizer step (asynchronous on CUDA).

        Args:
            step: The step whose gradient was computed.
            rate_factor: The learning rate as a share of its peak.
        """
        set_learning_rate(self._optimizer, self._options.peak_rate * rate_factor)
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update(self._model, step)

    def state(self) -> dict[str, Any]:
        """The fields of `PretrainState` that hold tensors."""
        projector, ema = self._objective.projector, self._ema
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "projector": None if projector is None else projector.state_dict(),
            "average": None if ema is None else ema.model.state_dict(),
        }

    def restore(self, state: PretrainState) -> None:
        """Load what `state` returned."""
        self._model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        if self._objective.projector is not None and state.projector is not None:
            self._objective.projector.load_state_dict(state.projector)
        if self._ema is not None and state.average is not None:
            self._ema.model.load_state_dict(state.average)

    def close(self) -> None:
        """Stop the replicas' threads and the decoding processes."""
        self._replicas.close()
        self._batches.close()

    def _forward(self, model: Objective, part: Batch) -> ObjectiveOutput:
        pixels, noise = self._batches.model_input(part)
        with precision_context(self._device, self._options.precision):
            output: ObjectiveOutput = model(pixels, noise, len(part.views), part.mask_ratio)
        return output
