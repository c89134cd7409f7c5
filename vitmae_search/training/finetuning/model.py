"""Classifiers: built from a pretrained encoder, and loaded from a run's folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import (
    Checkpoint,
    ImageClassifierOutput,
    NewParametersWarning,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
    classification_loss,
    find_checkpoint,
    pool,
    read_checkpoint,
)
from vitmae_search.vitmae.config import ENCODER_RULES, EncoderConfig
from vitmae_search.vitmae.pretrained import PreTrainedModel

POOLING_KEY = "pooling"
"""The field of config.json that is "mean" for a `MeanPooledClassifier`."""
_HEAD_PREFIXES = ("classifier.", "mean_classifier.")


class MeanPooledClassifier(PreTrainedModel):
    """A ViT encoder with a linear head on the mean of its patch tokens after the final norm.

    `ViTForImageClassification` always uses the CLS token, here and in `transformers`. The head here is
    called `mean_classifier`, so that those report a missing classifier when they load such a checkpoint,
    and do not silently predict from the wrong token. The encoder loads anywhere.

    Args:
        config: With `num_labels` classes.
    """

    config: ViTConfig
    config_class = ViTConfig
    newly_made = ("mean_classifier.",)

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.mean_classifier = nn.Linear(config.hidden_size, config.num_labels or 0)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Classify images.

        Args:
            pixel_values: (N, 3, H, W), normalised.
            labels: (N,) int64, to compute the loss.

        Returns:
            Logits (N, num_labels), and the loss where there are labels.
        """
        tokens = self.vit(pixel_values, return_dict=True).last_hidden_state
        logits = self.mean_classifier(pool(tokens, "mean"))
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return ImageClassifierOutput(loss=loss, logits=logits)


Classifier = ViTForImageClassification | MeanPooledClassifier


def load_classifier(name_or_path: str | os.PathLike[str]) -> Classifier:
    """Load a fine-tuned classifier in evaluation mode, as the class that its config.json calls for.

    Raises:
        ModelNotFound: There is no such checkpoint.
        CheckpointError: It cannot be read.
        ConfigError: It has no trained head.
    """
    checkpoint = read_checkpoint(find_checkpoint(name_or_path))
    model_class = _classifier_class("mean" if checkpoint.config.extra.get(POOLING_KEY) == "mean" else "cls")
    if not any(name.startswith(model_class.newly_made) for name in checkpoint.state):
        raise ConfigError("model", os.fspath(name_or_path), "has no trained classifier")
    return model_class.from_checkpoint(checkpoint)


def build_classifier(
    checkpoint: Checkpoint, names: Sequence[str], *, pooling: str, head_std: float, seed: int
) -> Classifier:
    """A checkpoint's encoder with a classification head, on the CPU.

    A head for the same classes in the same order and with the same pooling is kept. Otherwise it is
    initialised from N(0, head_std²), truncated at two standard deviations.

    Args:
        checkpoint: Of a ViTMAE, or of a classifier.
        names: The classes.
        pooling: "cls" or "mean".
        head_std: Standard deviation of a new head's weights.
        seed: Determines them.
    """
    model_class = _classifier_class(pooling)
    state = dict(checkpoint.state)
    if not _has_head(checkpoint, names, model_class):
        state = {name: value for name, value in state.items() if not name.startswith(_HEAD_PREFIXES)}
    config = _config(checkpoint.config, names, pooling)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NewParametersWarning)  # the head is meant to be new
        torch.manual_seed(seed)
        model = model_class.from_checkpoint(replace(checkpoint, config=config, state=state))
        if not any(name.startswith(model_class.newly_made) for name in state):
            head = classifier_head(model)
            nn.init.trunc_normal_(head.weight, std=head_std, a=-2 * head_std, b=2 * head_std)
            nn.init.zeros_(head.bias)
    return model


def classifier_head(model: Classifier) -> nn.Linear:
    """The linear layer of a classifier."""
    head = model.mean_classifier if isinstance(model, MeanPooledClassifier) else model.classifier
    assert isinstance(head, nn.Linear)
    return head


def with_weights(model: Classifier, state: dict[str, Tensor]) -> Classifier:
    """A new model with the configuration of another.

    Args:
        model: Its configuration is used.
        state: The new model's state dict, which is not copied.
    """
    with torch.device("meta"):
        other = type(model)(model.config)
    other.load_state_dict(state, assign=True)
    return other


def fold_batch_norm(norm: nn.BatchNorm1d, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm in evaluation mode into the linear layer after it.

    W' = W / √(variance + ε) and b' = b - W'·mean, computed in float64.

    Args:
        norm: Without affine.
        head: The linear layer.

    Returns:
        Weight and bias of one equivalent linear layer, in the head's dtype.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = head.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = head.bias.double() - weight @ norm.running_mean.double()
    return weight.to(head.weight.dtype).detach(), bias.to(head.bias.dtype).detach()


def _classifier_class(pooling: str) -> type[Classifier]:
    return MeanPooledClassifier if pooling == "mean" else ViTForImageClassification


def _has_head(checkpoint: Checkpoint, names: Sequence[str], model_class: type[Classifier]) -> bool:
    if not any(name.startswith(model_class.newly_made) for name in checkpoint.state):
        return False
    return checkpoint.config.id2label == dict(enumerate(names))


def _config(start: EncoderConfig, names: Sequence[str], pooling: str) -> ViTConfig:
    values: dict[str, Any] = {name: getattr(start, name) for name in ENCODER_RULES}
    return ViTConfig(
        **values,
        id2label=dict(enumerate(names)),
        problem_type="single_label_classification",
        extra={POOLING_KEY: pooling} if pooling == "mean" else {},
    )
