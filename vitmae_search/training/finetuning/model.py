"""The classifiers: made from a pretrained encoder, and loaded again from a run's folder."""

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

DEFAULT_MODEL = "vitmae-tiny-patch8-64"
POOLING_KEY = "pooling"
"""The field of config.json that says "mean" for a `MeanPooledClassifier`."""
_HEADS = ("classifier.", "mean_classifier.")


class MeanPooledClassifier(PreTrainedModel):
    """A ViT encoder and a linear map of the mean of its patch tokens after the final norm.

    `ViTForImageClassification` reads the CLS token, here and in `transformers`, and cannot be told
    otherwise. So the head has a name of its own, `mean_classifier`: either of those then says that its
    classifier is newly made, and does not quietly predict from the wrong token. The encoder loads anywhere.
    """

    config: ViTConfig
    config_class = ViTConfig
    newly_made = ("mean_classifier.",)

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.mean_classifier = nn.Linear(config.hidden_size, config.num_labels or 0)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """(N, 3, H, W), normalised, to logits (N, num_labels), and with `labels` (N,) the loss."""
        tokens = self.vit(pixel_values, return_dict=True).last_hidden_state
        logits = self.mean_classifier(pool(tokens, "mean"))
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return ImageClassifierOutput(loss=loss, logits=logits)


Classifier = ViTForImageClassification | MeanPooledClassifier


def load_classifier(name_or_path: str | os.PathLike[str]) -> Classifier:
    """A fine-tuned classifier in evaluation mode, of the class that its config.json calls for.

    Raises `ModelNotFound`, `CheckpointError`, and `ConfigError` where there is no trained head.
    """
    checkpoint = read_checkpoint(find_checkpoint(name_or_path))
    kind = _kind("mean" if checkpoint.config.extra.get(POOLING_KEY) == "mean" else "cls")
    if not any(name.startswith(kind.newly_made) for name in checkpoint.state):
        raise ConfigError("model", os.fspath(name_or_path), "has no trained classifier")
    return kind.from_checkpoint(checkpoint)


def new_classifier(
    checkpoint: Checkpoint, names: Sequence[str], *, pooling: str, head_std: float, seed: int
) -> Classifier:
    """The checkpoint's encoder with a head for `names`, on the CPU.

    A head that is there for the same classes, in their order, and the same pooling is kept. Otherwise its
    weights are drawn by `seed` from N(0, head_std²), cut off at two deviations.
    """
    kind = _kind(pooling)
    state = dict(checkpoint.state)
    if not _has_head(checkpoint, names, kind):
        state = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
    config = _config(checkpoint.config, names, pooling)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NewParametersWarning)  # that the head is new is the point
        torch.manual_seed(seed)
        model = kind.from_checkpoint(replace(checkpoint, config=config, state=state))
        if not any(name.startswith(kind.newly_made) for name in state):
            head = head_of(model)
            nn.init.trunc_normal_(head.weight, std=head_std, a=-2 * head_std, b=2 * head_std)
            nn.init.zeros_(head.bias)
    return model


def head_of(model: Classifier) -> nn.Linear:
    head = model.mean_classifier if isinstance(model, MeanPooledClassifier) else model.classifier
    assert isinstance(head, nn.Linear)
    return head


def with_weights(model: Classifier, state: dict[str, Tensor]) -> Classifier:
    """Another model of the same configuration that has the weights `state`."""
    with torch.device("meta"):
        other = type(model)(model.config)
    other.load_state_dict(state, assign=True)
    return other


def fold_batch_norm(norm: nn.BatchNorm1d, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one linear map that does what `norm`, in evaluation, and then `head` do.

    W' = W / √(variance + ε) and b' = b - W'·mean, in float64, returned in the head's dtype.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = head.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = head.bias.double() - weight @ norm.running_mean.double()
    return weight.to(head.weight.dtype).detach(), bias.to(head.bias.dtype).detach()


def _kind(pooling: str) -> type[Classifier]:
    return MeanPooledClassifier if pooling == "mean" else ViTForImageClassification


def _has_head(checkpoint: Checkpoint, names: Sequence[str], kind: type[Classifier]) -> bool:
    if not any(name.startswith(kind.newly_made) for name in checkpoint.state):
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
