"""An open classifier: photos through a ViT and its linear head, to one probability per class."""

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
from vitmae_search.vitmae.checkpoint.weights import weights_digest
from vitmae_search.vitmae.inference import device_name
from vitmae_search.vitmae.normalization import normalization_table

from .devices import choose_precision
from .engine import engine_for
from .identity import config_identity, preprocessing_identity
from .model_list import locate_model
from .networks import Probabilities, make_processor, require_rgb
from .preprocess import Resize

_HEAD, _MEAN_HEAD = "classifier.", "mean_classifier."
"""Prefixes of a head's weights: on the CLS token, and on the mean of the patch tokens (this project only)."""


def open_vit_classifier(model: str, *, device: str, precision: str) -> ViTClassifier:
    """Load a classifier.

    Args:
        model: A bundled model's name, a folder, a file, or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.

    Raises:
        ModelError: Where it is not found, cannot be loaded, or is no classifier.
        DeviceError: Where device or precision are not available.
    """
    torch_device = choose_device(device)
    source, name = locate_model(model)
    checkpoint = read_checkpoint(find_checkpoint(source))
    return ViTClassifier(
        name, checkpoint, device=torch_device, precision=choose_precision(precision, torch_device)
    )


class ViTClassifier(Classifier):
    """An open image classifier. `classify` takes what `prepare` gives, (N, H, W, 3) uint8."""

    def __init__(self, name: str, checkpoint: Checkpoint, *, device: torch.device, precision: str) -> None:
        """Put the weights on the device.

        Args:
            name: For people.
            checkpoint: Configuration and weights.
            device: Where it computes.
            precision: fp32 or bf16.

        Raises:
            ModelError: For a model without a head, or whose classes do not exclude each other.
        """
        require_rgb(checkpoint, name)
        checkpoint, pooled = _with_head(checkpoint, name)
        model = ViTForImageClassification.from_checkpoint(checkpoint)
        _require_exclusive_classes(model.config, name)
        processor = make_processor(checkpoint)
        self.model = name
        assert model.config.id2label is not None
        self.labels = [model.config.id2label[number] for number in range(model.num_labels)]
        self.identity: dict[str, Any] = {
            "weights": weights_digest(model.state_dict()),
            "config": config_identity(model.config),
            "preprocessing": preprocessing_identity(processor),
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
        network = Probabilities(model, normalization_table(processor), pooled)
        self._engine = engine_for(network, model.config, (height, width), device=device, precision=precision)
        self.batch_size = self._engine.batch_size

    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 to (N, len(labels)) probabilities."""
        return self._engine.run(batch)

    def offload(self) -> None:
        """Move the weights to the host's memory until the next call."""
        self._engine.offload()

    def close(self) -> None:
        """Release the weights."""
        self._engine.close()


def _with_head(checkpoint: Checkpoint, name: str) -> tuple[Checkpoint, str]:
    """The checkpoint with its head named `classifier`, and the head's pooling. Raises `CheckpointError`."""
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


def _require_exclusive_classes(config: ViTConfig, name: str) -> None:
    """Raise `ModelError` where the classes do not exclude each other: rows would not sum to 1."""
    if (config.num_labels or 0) < 2:
        raise ModelError(f"{name} has {config.num_labels} classes; a classifier needs two or more")
    if config.problem_type not in (None, "single_label_classification"):
        raise ModelError(f"{name} does {config.problem_type}; only classifiers with one class a photo work")
