"""The configuration: what it refuses, and that nothing is lost on the way through JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from vitmae_search.errors import CheckpointError, ConfigError
from vitmae_search.vitmae import ViTMAEConfig

FIELDS = list(ViTMAEConfig.own_rules)


def test_the_nineteen_fields_have_the_reference_defaults() -> None:
    reference = transformers.ViTMAEConfig()
    assert len(FIELDS) == 19
    ours = ViTMAEConfig()
    assert {name: getattr(ours, name) for name in FIELDS} == {n: getattr(reference, n) for n in FIELDS}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", 30),
        ("hidden_size", 32.0),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", True),
        ("num_attention_heads", 5),
        ("decoder_num_attention_heads", 7),
        ("decoder_hidden_size", -4),
        ("hidden_act", "swish"),
        ("hidden_dropout_prob", 1.0),
        ("attention_probs_dropout_prob", -0.1),
        ("layer_norm_eps", 0),
        ("initializer_range", float("nan")),
        ("image_size", "224"),
        ("image_size", (224, 224, 3)),
        ("patch_size", 15),
        ("num_channels", None),
        ("qkv_bias", 1),
        ("mask_ratio", 1),
        ("mask_ratio", -0.25),
        ("mask_ratio", float("nan")),
        ("norm_pix_loss", "yes"),
    ],
)
def test_a_value_out_of_range_is_refused_by_field_value_and_rule(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        ViTMAEConfig(**{field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}={value!r}: must ")


def test_patches_must_tile_both_sides() -> None:
    assert ViTMAEConfig(image_size=(32, 48)).grid_size == (2, 3)
    with pytest.raises(ConfigError, match="must tile image_size=\\(32, 40\\)"):
        ViTMAEConfig(image_size=(32, 40))


def test_json_keeps_every_field_and_every_unknown_key(tmp_path: Path) -> None:
    values = {"image_size": [64, 32], "mask_ratio": 0.6, "architectures": ["X"], "note": {"a": [1, None]}}
    config = ViTMAEConfig.from_dict(values)
    assert config.image_size == (64, 32)
    assert config.extra == {"architectures": ["X"], "note": {"a": [1, None]}}
    config.to_json_file(tmp_path / "config.json")
    again = ViTMAEConfig.from_json_file(tmp_path / "config.json")
    assert again == config
    assert again.extra == config.extra
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "vit_mae"


def test_a_file_that_the_reference_wrote_is_read(tmp_path: Path) -> None:
    transformers.ViTMAEConfig(hidden_size=64, num_attention_heads=4).save_pretrained(tmp_path)
    config = ViTMAEConfig.from_json_file(tmp_path / "config.json")
    assert (config.hidden_size, config.num_attention_heads) == (64, 4)


def test_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_type='bert'"):
        ViTMAEConfig.from_dict({"model_type": "bert"})


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_file_that_is_no_json_object_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ViTMAEConfig.from_json_file(tmp_path / "config.json")


def test_an_assigned_value_is_checked_by_validate() -> None:
    config = ViTMAEConfig()
    config.mask_ratio = 0.0
    config.validate()
    config.mask_ratio = 2.0
    with pytest.raises(ConfigError, match="mask_ratio"):
        config.validate()
