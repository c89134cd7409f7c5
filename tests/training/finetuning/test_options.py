"""Options of fine-tuning."""

from __future__ import annotations

import pytest

from vitmae_search.errors import ConfigError
from vitmae_search.training.finetuning.options import FinetuneOptions


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [
        ("probe", "mixup", 0.8),
        ("probe", "layer_decay", 0.5),
        ("full", "views", 3),
        ("full", "layer_decay", 0.0),
        ("full", "drop_path", 1.0),
        ("full", "batch_size", 1),
        ("probe", "val_share", 1.0),
        ("probe", "pooling", "gem"),
        ("probe", "learning_rate", float("nan")),
    ],
)
def test_invalid_options_are_refused_by_name(mode: str, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        FinetuneOptions.for_mode(mode, **{name: value})


def test_the_recipes_come_back_from_json() -> None:
    for mode in ("probe", "full"):
        options = FinetuneOptions.for_mode(mode, seed=3, crop_scale=(0.3, 0.9))
        assert FinetuneOptions.from_json(options.to_json()) == options
