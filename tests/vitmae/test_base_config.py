"""What configurations have of the reference's base class, `PreTrainedConfig`."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from vitmae_search.errors import ConfigError, ModelNotFound
from vitmae_search.vitmae import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
)

KINDS = pytest.mark.parametrize("name", ["ViTMAEConfig", "ViTConfig"])
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
BASE_KEYWORDS = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["BertModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
    "is_decoder": False,
    "is_encoder_decoder": True,
    "name_or_path": "someone/mae",
    "my_own": {"nested": [1, None]},
}


def both(name: str) -> tuple[Any, Any]:
    """Our class and the reference's."""
    return {"ViTMAEConfig": ViTMAEConfig, "ViTConfig": ViTConfig}[name], getattr(transformers, name)


@KINDS
def test_the_base_class_s_keywords(name: str) -> None:
    ours, theirs = (kind(**BASE_KEYWORDS) for kind in both(name))
    for keyword in BASE_KEYWORDS:
        assert getattr(ours, keyword) == getattr(theirs, keyword), keyword
    plain, their_plain = (kind() for kind in both(name))
    for keyword in ("return_dict", "dtype", "chunk_size_feed_forward", "architectures", "is_encoder_decoder"):
        assert getattr(plain, keyword) == getattr(their_plain, keyword), keyword
    for keyword in ("id2label", "label2id", "num_labels", "problem_type", "name_or_path", "sub_configs"):
        assert getattr(plain, keyword) == getattr(their_plain, keyword), keyword
    for config in (plain, their_plain):
        with pytest.raises(AttributeError):
            config.my_own  # noqa: B018
        assert not hasattr(config, "is_decoder")


@KINDS
def test_only_keywords_are_taken(name: str) -> None:
    for kind in both(name):
        with pytest.raises((TypeError, ValueError), match="positional"):
            kind(32)


@KINDS
def test_a_dtype_has_two_names(name: str) -> None:
    for kind in both(name):
        assert kind(torch_dtype="bfloat16").dtype is torch.bfloat16
        assert kind(dtype=torch.float16, torch_dtype="bfloat16").dtype is torch.float16
        config = kind(dtype="float64")
        config.dtype = torch.float32
        assert config.dtype is torch.float32
        assert config.to_dict()["dtype"] == "float32"
    with pytest.raises(ConfigError, match="dtype='float17': must be a torch dtype"):
        ViTMAEConfig(dtype="float17")


@KINDS
def test_a_file_s_values_are_keywords(name: str, tmp_path: Path) -> None:
    ours, theirs = both(name)
    theirs(**SMALL, **BASE_KEYWORDS).save_pretrained(tmp_path)
    with open(tmp_path / "config.json", encoding="utf-8") as file:
        values = json.load(file)
    config = ours(**values)
    assert config == ours.from_pretrained(tmp_path)
    assert (config.hidden_size, config.dtype, config.my_own) == (32, torch.float16, BASE_KEYWORDS["my_own"])
    assert config.to_dict()["transformers_version"] == transformers.__version__
    for again in (config, theirs(**config.to_dict())):
        written = json.loads(again.to_json_string())
        assert {key: written[key] for key in values} == values
    with pytest.raises(ConfigError, match="model_type='bert'"):
        ours(model_type="bert")


@KINDS
def test_the_number_of_labels_is_assigned(name: str) -> None:
    for kind in both(name):
        config = kind(num_labels=5)
        assert len(config.id2label) == len(config.label2id) == 5
        config.num_labels = 3
        assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
        config.id2label = {0: "cat", 1: "dog"}
        assert config.num_labels == 2
        config.num_labels = 2
        assert config.id2label == {0: "cat", 1: "dog"}
        assert "num_labels" not in config.to_dict()
    with pytest.raises(ConfigError, match=r"num_labels=-1: must be an integer from 0 to"):
        ViTConfig(num_labels=-1)
    model = ViTForImageClassification(ViTConfig(**SMALL))
    model.config.num_labels = 7
    assert ViTForImageClassification(model.config).classifier.out_features == 7


@KINDS
def test_attributes_are_assigned_and_updated(name: str) -> None:
    for kind in both(name):
        config = kind(**SMALL)
        config.update({"hidden_size": 64, "layers_to_freeze": [1]})
        config.hidden_dropout_prob = 0.5
        config.remark = "mine"
        assert (config.hidden_size, config.layers_to_freeze, config.remark) == (64, [1], "mine")
        values = config.to_dict()
        assert (values["hidden_size"], values["layers_to_freeze"], values["remark"]) == (64, [1], "mine")
        del config.remark
        assert not hasattr(config, "remark")
        assert "remark" not in config.to_dict()
        assert {"hidden_size", "layers_to_freeze"} <= set(config)
        for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
            assert again == config
            assert again.layers_to_freeze == [1]


@KINDS
def test_json_text_has_what_the_reference_s_has(name: str, tmp_path: Path) -> None:
    ours, theirs = (kind(**SMALL, layer_norm_eps=1e-6, remark="mine") for kind in both(name))
    mine, expected = json.loads(ours.to_json_string()), json.loads(theirs.to_json_string())
    assert mine == ours.to_diff_dict() == ours.to_dict()
    labels = {"id2label", "label2id"} if name == "ViTConfig" else set()
    assert expected.keys() - mine.keys() == {"transformers_version"}
    assert mine.keys() - expected.keys() == labels
    assert {key: mine[key] for key in expected if key in mine} == {
        key: value for key, value in expected.items() if key in mine
    }
    ours.to_json_file(tmp_path / "config.json", use_diff=False)
    assert (tmp_path / "config.json").read_text() == ours.to_json_string()
    assert type(theirs).from_json_file(tmp_path / "config.json").remark == "mine"
    assert ours.get_text_config(decoder=True) is ours


@KINDS
def test_a_configuration_chooses_attention(name: str, tmp_path: Path) -> None:
    for kind in both(name):
        config = kind(attn_implementation="eager")
        assert config._attn_implementation == "eager"
        config._attn_implementation = "sdpa"
        assert config._attn_implementation == "sdpa"
        config.save_pretrained(tmp_path)
        assert not [key for key in json.loads((tmp_path / "config.json").read_text()) if "attn" in key]
    with pytest.raises(ConfigError, match=r"attn_implementation='flash_attention_2': must be sdpa or eager"):
        both(name)[0](attn_implementation="flash_attention_2")


def test_models_follow_their_configuration_s_attention() -> None:
    images = torch.zeros(1, 3, 32, 32)
    model = ViTMAEModel(ViTMAEConfig(**SMALL, attn_implementation="eager"))
    assert len(model(images, output_attentions=True).attentions) == 1
    model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == "sdpa"
    reference = transformers.ViTMAEModel(transformers.ViTMAEConfig(**SMALL))
    assert ViTMAEModel(ViTMAEConfig(**SMALL)).config._attn_implementation == "sdpa"
    assert reference.config._attn_implementation == "sdpa"


@KINDS
def test_from_pretrained_takes_the_reference_s_arguments(name: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "cache_dir": tmp_path / "cache",
        "force_download": False,
        "local_files_only": True,
        "token": None,
        "revision": "main",
        "trust_remote_code": False,
    }
    for kind in both(name):
        kind(**SMALL).save_pretrained(tmp_path / "inner", push_to_hub=False)
        config = kind.from_pretrained(
            pretrained_model_name_or_path=tmp_path,
            subfolder="inner",
            **arguments,
            attn_implementation="eager",
        )
        assert (config.hidden_size, config._attn_implementation) == (32, "eager")
        assert config.to_dict()["hidden_size"] == 32
        config, unused = kind.from_pretrained(
            tmp_path / "inner", return_unused_kwargs=True, num_labels=7, hidden_act="relu", typo=1
        )
        assert (config.num_labels, config.hidden_act, unused) == (7, "relu", {"typo": 1})
        with pytest.raises(OSError, match="gone"):
            kind.from_pretrained(tmp_path / "gone")
        config, unused = kind.from_dict(config.to_dict(), return_unused_kwargs=True, mask_ratio=0.5, typo=1)
        assert unused == ({"typo": 1} if name == "ViTMAEConfig" else {"mask_ratio": 0.5, "typo": 1})
    with pytest.raises(ModelNotFound, match="not in the local cache"):
        both(name)[0].from_pretrained("someone/mae", **arguments)
    with pytest.raises(ConfigError, match="push_to_hub=True: is not supported"):
        both(name)[0]().save_pretrained(tmp_path, push_to_hub=True)


def test_where_it_came_from_is_kept_and_not_written(tmp_path: Path) -> None:
    ViTMAEForPreTraining(ViTMAEConfig(**SMALL)).save_pretrained(tmp_path)
    for ours, theirs in (
        (ViTMAEConfig.from_pretrained(tmp_path), None),
        (ViTMAEForPreTraining.from_pretrained(tmp_path).config, None),
        (
            ViTMAEForPreTraining.from_pretrained(tmp_path),
            transformers.ViTMAEForPreTraining.from_pretrained(tmp_path),
        ),
    ):
        assert ours.name_or_path == str(tmp_path)
        assert theirs is None or theirs.name_or_path == ours.name_or_path
    assert "name_or_path" not in (tmp_path / "config.json").read_text()


def test_gradient_checkpointing_of_old_files() -> None:
    assert ViTMAEModel(ViTMAEConfig(**SMALL, gradient_checkpointing=True)).is_gradient_checkpointing
    assert not ViTMAEModel(ViTMAEConfig(**SMALL, gradient_checkpointing=False)).is_gradient_checkpointing
