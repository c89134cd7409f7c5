"""The configurations' options: functions, pairs, overrides, labels, and files both ways."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from vitmae_search.errors import ConfigError, ModelNotFound
from vitmae_search.vitmae import ViTConfig, ViTMAEConfig


@pytest.mark.parametrize("config", [ViTMAEConfig, ViTConfig])
def test_every_field_has_a_rule(config: Any) -> None:
    ruled = [f.name for f in fields(config) if not f.kw_only]
    assert ruled == list(config.own_rules)


@pytest.mark.parametrize("activation", [functional.silu, torch.tanh, lambda x: x * 2, nn.Mish()])
def test_an_activation_may_be_a_function(activation: Any) -> None:
    assert ViTMAEConfig(hidden_act=activation).hidden_act is activation


@pytest.mark.parametrize("activation", [nn.PReLU(), nn.GELU, 3, None, "gelu_old"])
def test_other_values_are_no_activation(activation: Any) -> None:
    with pytest.raises(ConfigError, match=r"hidden_act=.* or a function of a tensor"):
        ViTMAEConfig(hidden_act=activation)


def test_a_function_is_written_by_its_name_or_refused(tmp_path: Path) -> None:
    ViTMAEConfig(hidden_act=functional.relu).save_pretrained(tmp_path)
    assert transformers.ViTMAEConfig.from_pretrained(tmp_path).hidden_act == "relu"
    with pytest.raises(ConfigError, match=r"hidden_act=.*has no name for a file"):
        ViTMAEConfig(hidden_act=functional.mish).save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other/config.json").exists()


def test_sizes_are_sides_or_pairs() -> None:
    config = ViTMAEConfig.from_dict({"image_size": [32, 48], "patch_size": [8, 16]})
    assert (config.image_size, config.patch_size) == ((32, 48), (8, 16))
    assert (config.image_shape, config.patch_shape, config.grid_size) == ((32, 48), (8, 16), (4, 3))
    assert config.num_patches == 12
    assert config.to_dict()["patch_size"] == [8, 16]
    assert ViTMAEConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"patch_size=\(16, 8\): must tile"):
        ViTMAEConfig(image_size=(24, 48), patch_size=(16, 8))


def test_a_pretrained_configuration_with_overrides(tmp_path: Path) -> None:
    ViTMAEConfig(hidden_size=64, num_attention_heads=4, norm_pix_loss=True).save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "config.json"):
        config = ViTMAEConfig.from_pretrained(place, mask_ratio=0.5, output_hidden_states=True)
        assert (config.hidden_size, config.norm_pix_loss, config.mask_ratio) == (64, True, 0.5)
        assert config.output_hidden_states
    theirs = transformers.ViTMAEConfig.from_pretrained(tmp_path, mask_ratio=0.5)
    for name in ViTMAEConfig.own_rules:
        assert getattr(theirs, name) == getattr(config, name)
    with pytest.raises(ConfigError, match=r"mask_ration=0.5: is not a field of ViTMAEConfig"):
        ViTMAEConfig.from_pretrained(tmp_path, mask_ration=0.5)
    with pytest.raises(ConfigError, match=r"mask_ratio=1\.5"):
        ViTMAEConfig.from_pretrained(tmp_path, mask_ratio=1.5)
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        ViTMAEConfig.from_pretrained(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=r"has no config\.json"):
        ViTMAEConfig.from_pretrained(tmp_path / "empty")


def test_unknown_keys_survive_overrides_and_files(tmp_path: Path) -> None:
    hub = {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "torch_dtype": "float32",
        "transformers_version": "4.16.0.dev0",
        "something_new": {"nested": [1, 2.5, None, True]},
    }
    (tmp_path / "config.json").write_text(json.dumps(hub))
    config = ViTMAEConfig.from_pretrained(tmp_path, mask_ratio=0.6)
    config.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again/config.json").read_text())
    assert {key: again[key] for key in hub} == hub
    assert again["mask_ratio"] == 0.6
    theirs = transformers.ViTMAEConfig.from_pretrained(tmp_path / "again")
    assert theirs.something_new == hub["something_new"]


def test_what_forward_returns_is_written_only_where_it_was_changed() -> None:
    assert not {"output_attentions", "return_dict"} & ViTMAEConfig().to_dict().keys()
    changed = ViTMAEConfig(return_dict=False, output_attentions=True)
    assert changed.to_dict()["return_dict"] is False
    assert ViTMAEConfig.from_dict(changed.to_dict()) == changed
    with pytest.raises(ConfigError, match="output_attentions='yes'"):
        ViTMAEConfig(output_attentions="yes")  # type: ignore[arg-type]


def test_a_vit_has_the_reference_defaults_and_labels() -> None:
    ours, theirs = ViTConfig(), transformers.ViTConfig()
    for name in (*ViTConfig.own_rules, "num_labels", "id2label", "label2id", "problem_type"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_labels_and_their_number_follow_from_each_other() -> None:
    assert ViTConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    named = ViTConfig.from_dict({"id2label": {"0": "cat", "1": "dog", "2": "owl"}})
    assert (named.num_labels, named.label2id) == (3, {"cat": 0, "dog": 1, "owl": 2})
    assert named.with_overrides({"num_labels": 3}).id2label == named.id2label
    fewer = named.with_overrides({"num_labels": 2})
    assert (fewer.id2label, fewer.label2id) == ({0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1})
    other = named.with_overrides({"id2label": {0: "day", 1: "night"}})
    assert (other.num_labels, other.label2id) == (2, {"day": 0, "night": 1})
    assert ViTConfig(num_labels=0).id2label == {}
    with pytest.raises(ConfigError, match=r"id2label=.*num_labels=2"):
        ViTConfig(num_labels=2, id2label={0: "cat"})
    with pytest.raises(ConfigError, match="problem_type='guess'"):
        ViTConfig(problem_type="guess")


def test_a_vit_goes_both_ways(tmp_path: Path) -> None:
    labels = {0: "cat", 1: "dog", 2: "owl"}
    ours = ViTConfig(image_size=(32, 64), id2label=labels, problem_type="multi_label_classification")
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.ViTConfig.from_pretrained(tmp_path / "ours")
    assert (theirs.id2label, theirs.label2id) == (labels, {"cat": 0, "dog": 1, "owl": 2})
    assert theirs.problem_type == "multi_label_classification"
    theirs.save_pretrained(tmp_path / "theirs")
    assert ViTConfig.from_pretrained(tmp_path / "theirs") == ours


def test_a_vit_is_made_from_a_vitmae_and_back() -> None:
    mae = ViTMAEConfig(hidden_size=64, num_attention_heads=4, mask_ratio=0.6, extra={"note": 1})
    vit = ViTConfig.from_dict(mae.to_dict())
    assert (vit.hidden_size, vit.extra["mask_ratio"], vit.model_type) == (64, 0.6, "vit")
    again = ViTMAEConfig.from_dict(vit.to_dict())
    assert again == mae
    assert again.extra["note"] == 1
