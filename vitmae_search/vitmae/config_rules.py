"""The rules that a configuration's fields obey, each with the words that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vitmae_search.vitmae.activations import ACTIVATIONS, is_activation

Rule = tuple[Callable[[Any], bool], str]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return _is_int(value) and value > 0  # type: ignore[operator]


def _is_size(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_positive(side) for side in value)
    return _is_positive(value)


COUNT: Rule = (_is_positive, "must be a positive integer")
WIDTH: Rule = (
    lambda v: _is_positive(v) and v % 4 == 0,
    "must be a positive multiple of 4 (sines and cosines of two axes)",
)
SHARE: Rule = (lambda v: _is_number(v) and 0 <= v < 1, "must be a number in [0, 1)")
POSITIVE: Rule = (lambda v: _is_number(v) and 0 < v < float("inf"), "must be a positive number")
FLAG: Rule = (lambda v: isinstance(v, bool), "must be true or false")
SIZE: Rule = (_is_size, "must be a positive integer, or a pair of them: height, width")
ACTIVATION: Rule = (is_activation, f"must be one of {', '.join(ACTIVATIONS)}, or a function of a tensor")

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
PROBLEM_TYPE: Rule = (
    lambda v: v is None or v in PROBLEM_TYPES,
    f"must be null or one of {', '.join(PROBLEM_TYPES)}",
)

ENCODER_RULES: dict[str, Rule] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "intermediate_size": COUNT,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": SHARE,
    "attention_probs_dropout_prob": SHARE,
    "initializer_range": POSITIVE,
    "layer_norm_eps": POSITIVE,
    "image_size": SIZE,
    "patch_size": SIZE,
    "num_channels": COUNT,
    "qkv_bias": FLAG,
}
OUTPUT_RULES: dict[str, Rule] = {
    "output_hidden_states": FLAG,
    "output_attentions": FLAG,
    "return_dict": FLAG,
}
OUTPUT_DEFAULTS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}
