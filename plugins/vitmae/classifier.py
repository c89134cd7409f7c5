"""An open classifier: photos' pixels through a whole ViT and its linear head, to a probability a class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitmae_search.embedding import Classifier
from vitmae_search.errors import CheckpointError, ModelError
from vitmae_search.vitmae import (
    Checkpoint,
    ViTConfig,
    ViTForImageClassification,
    choose_device,
    find_checkpoint,
    read_checkpoint,
)

from .devices import choose_precision, device_name
from .engine import engine_for
from .identity import config_of, preprocessing_of, weights_digest
from .model_list import locate
from .networks import Probabilities, levels_of, processor_of, require_rgb
from .preprocess import Resize

_HEAD, _MEAN_HEAD = "classifier.", "mean_classifier."
"""What a head's weights are called: on the CLS token, and, ours alone, on the mean of the patch tokens."""


def open_vit_classifier(model: str, *, device: str, precision: str) -> ViTClassifier:
    """Load the classifier that `model` names. Raises `ModelError`, `DeviceError`."""
    chosen = choose_device(device)
    source, name = locate(model)
    checkpoint = read_checkpoint(find_checkpoint(source))
    return ViTClassifier(name, checkpoint, device=chosen, precision=choose_precision(precision, chosen))


class ViTClassifier(Classifier):
    """An open image classifier.

    `classify` takes what `prepare` gives, (N, H, W, 3) uint8.
    """

    def __init__(self, name: str, checkpoint: Checkpoint, *, device: torch.device, precision: str) -> None:
        require_rgb(checkpoint, name)
        checkpoint, pooled = _with_head(checkpoint, name)
        model = ViTForImageClassification.from_checkpoint(checkpoint)
        _require_one_of_several(model.config, name)
        processor = processor_of(checkpoint)
        self.model = name
        assert model.config.id2label is not None
        self.labels = [model.config.id2label[number] for number in range(model.num_labels)]
        self.identity: dict[str, Any] = {
            "weights": weights_digest(model.state_dict()),
            "config": config_of(model.config),
            "preprocessing": preprocessing_of(processor),
            "pooling": pooled,
            "labels": self.labels,
        }
        self.provenance = {
            "device": device_name(device),
            "precision": precision,
            "torch": str(torch.__version__),
        }
        height, width = processor.height_width
        self.input_size = max(height, width)
        self.prepare = Resize(height, width, processor.resample)
        network = Probabilities(model, levels_of(processor), pooled)
        self._engine = engine_for(network, model.config, (height, width), device=device, precision=precision)
        self.batch_size = self._engine.batch_size

    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._engine.run(batch)

    def offload(self) -> None:
        """Move the weights to the host's memory until the next call."""
        self._engine.rest()

    def close(self) -> None:
        self._engine.close()


def _with_head(checkpoint: Checkpoint, name: str) -> tuple[Checkpoint, str]:
    """The checkpoint with its head called `classifier`, and what that looks at. Raises `CheckpointError`."""
    state = checkpoint.state
    if f"{_MEAN_HEAD}weight" in state:
        named = {
            _HEAD + key.removeprefix(_MEAN_HEAD) if key.startswith(_MEAN_HEAD) else key: value
            for key, value in state.items()
        }
        return replace(checkpoint, state=named), "mean"
    if f"{_HEAD}weight" in state:
        return checkpoint, "avg" if "fc_norm.weight" in state else "cls"
    raise CheckpointError(
        f"{name} has no classifier: it embeds photos, and cannot name what is on them. "
        "Train one with `vitmae-search finetune`, or choose a ViTForImageClassification checkpoint."
    )


def _require_one_of_several(config: ViTConfig, name: str) -> None:
    """Raise `ModelError` where the classes do not exclude each other, so that no row would sum to 1."""
    if (config.num_labels or 0) < 2:
        raise ModelError(f"{name} has {config.num_labels} classes; a classifier needs two or more")
    if config.problem_type not in (None, "single_label_classification"):
        raise ModelError(f"{name} does {config.problem_type}; only classifiers with one class a photo work")
