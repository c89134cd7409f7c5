"""Checkpoints: four layouts in, one out, and a clear refusal of everything else."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor

from vitmae_search.errors import CheckpointError, ConfigError, ModelNotFound
from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    find_checkpoint,
    read_checkpoint,
)
from vitmae_search.vitmae.checkpoint.keys import Layout, detect_layout

Models = Callable[..., ViTMAEForPreTraining]
Tiny = Callable[..., dict[str, Any]]
State = dict[str, Tensor]

# Widths of named models, so that the shape follows from the weights alone.
NAMED = {
    "hidden_size": 192,
    "num_attention_heads": 3,
    "decoder_hidden_size": 512,
    "decoder_num_attention_heads": 16,
}


def authors_layout(state: Mapping[str, Tensor]) -> State:
    """A state dict of ours under the authors' names, written from their `models_mae.py`."""
    names = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.layernorm": "norm",
        "vit.encoder.layer": "blocks",
        "decoder.decoder_layers": "decoder_blocks",
        ".layernorm_before": ".norm1",
        ".layernorm_after": ".norm2",
        ".attention.output.dense": ".attn.proj",
        ".intermediate.dense": ".mlp.fc1",
        ".output.dense": ".mlp.fc2",
    }
    renamed: State = {}
    for key, value in state.items():
        if ".attention.attention." in key:
            continue
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        renamed[key.removeprefix("decoder.")] = value
    for key in [k for k in state if ".attention.attention.query." in k]:
        fused = torch.cat([state[key.replace("query", part)] for part in ("query", "key", "value")])
        block = key.replace("vit.encoder.layer", "blocks").replace("decoder.decoder_layers", "decoder_blocks")
        renamed[block.replace("attention.attention.query", "attn.qkv")] = fused
    return renamed


def memory_layout(state: Mapping[str, Tensor]) -> State:
    """A state dict of ours as transformers 5 has it in memory."""
    names = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    renamed = {}
    for key, value in state.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        renamed[key] = value
    return renamed


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


def write_folder(model: ViTMAEForPreTraining, state: State, folder: Path) -> Path:
    folder.mkdir()
    model.config.to_json_file(folder / "config.json")
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return folder


def test_the_hubs_layout(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    folder = write_folder(model, model.state_dict(), tmp_path / "a")
    assert read_checkpoint(find_checkpoint(folder)).layout is Layout.HUB
    assert same(ViTMAEForPreTraining.from_pretrained(folder), model)


def test_the_memory_layout_of_transformers_5(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    state = memory_layout(model.state_dict())
    reference = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**_fields(model.config)))
    assert reference.state_dict().keys() == state.keys()
    folder = write_folder(model, state, tmp_path / "b")
    assert read_checkpoint(find_checkpoint(folder)).layout is Layout.TRANSFORMERS_5_MEMORY
    assert same(ViTMAEForPreTraining.from_pretrained(folder), model)


def test_what_transformers_5_saves(
    tiny: Tiny, randomise: Callable[[Any], Any], random_model: Models, tmp_path: Path
) -> None:
    reference = randomise(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**tiny())))
    reference.save_pretrained(tmp_path)
    assert read_checkpoint(find_checkpoint(tmp_path)).layout is Layout.TRANSFORMERS_5_SAVED
    ours = ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert memory_layout(ours.state_dict()).keys() == reference.state_dict().keys()
    for name, value in memory_layout(ours.state_dict()).items():
        assert value.equal(reference.state_dict()[name]), name


@pytest.mark.parametrize("wrapped", ["training save", "model alone", "bare", "distributed"])
def test_the_authors_pth(wrapped: str, random_model: Models, tmp_path: Path) -> None:
    model = random_model(**NAMED)
    state = authors_layout(model.state_dict())
    assert {"blocks.1.mlp.fc2.bias", "decoder_blocks.0.attn.qkv.weight", "norm.weight"} <= state.keys()
    content: Any = {
        "training save": {
            "model": state,
            "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
            "epoch": 3,
            "args": argparse.Namespace(norm_pix_loss=True, mask_ratio=0.6, model="mae_vit_tiny"),
        },
        "model alone": {"model": state},
        "bare": state,
        "distributed": {"model": {f"module.{k}": v for k, v in state.items()}},
    }[wrapped]
    torch.save(content, tmp_path / "mae.pth")
    checkpoint = read_checkpoint(find_checkpoint(tmp_path / "mae.pth"))
    assert checkpoint.layout is Layout.AUTHORS
    loaded = ViTMAEForPreTraining.from_pretrained(tmp_path / "mae.pth")
    assert same(loaded, model)
    config = loaded.config
    assert (config.num_attention_heads, config.decoder_num_attention_heads) == (3, 16)
    assert (config.image_size, config.patch_size, config.layer_norm_eps) == (32, 8, 1e-6)
    assert (config.norm_pix_loss, config.mask_ratio) == ((True, 0.6) if "args" in content else (False, 0.75))


@pytest.mark.parametrize("layout", [dict, memory_layout, authors_layout])
def test_an_encoder_alone_in_every_layout(
    layout: Callable[[State], State], random_model: Models, tmp_path: Path
) -> None:
    model = random_model()
    encoder = {k: v for k, v in model.state_dict().items() if not k.startswith("decoder.")}
    bare = {k.removeprefix("vit."): v for k, v in layout(encoder).items()}
    folder = write_folder(model, bare, tmp_path / "encoder")
    checkpoint = read_checkpoint(find_checkpoint(folder))
    assert not checkpoint.has_decoder
    assert same(ViTMAEModel.from_checkpoint(checkpoint), model.vit)


def test_an_encoder_is_taken_out_of_a_full_model(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    encoder = ViTMAEModel.from_pretrained(tmp_path)
    assert same(encoder, model.vit)
    assert encoder.loading_info is not None
    assert all(name.startswith("decoder.") for name in encoder.loading_info.unused)


def test_a_decoder_is_newly_made_with_a_warning_that_lists_it(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    model.vit.save_pretrained(tmp_path)
    with pytest.warns(NewParametersWarning, match=r"decoder\.mask_token, .*decoder\.decoder_pred\.bias"):
        loaded = ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert same(loaded.vit, model.vit)
    assert loaded.loading_info is not None
    assert set(loaded.loading_info.new) == {k for k in model.state_dict() if k.startswith("decoder.")}
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())
    assert bool(loaded.decoder.decoder_pos_embed.any())
    loaded.save_pretrained(tmp_path / "full")
    again = ViTMAEForPreTraining.from_pretrained(tmp_path / "full")
    assert again.loading_info is not None
    assert again.loading_info.new == ()


@pytest.mark.parametrize("name", ["ViTMAEForPreTraining", "ViTMAEModel"])
def test_transformers_loads_what_we_save(name: str, random_model: Models, tmp_path: Path) -> None:
    model = random_model(norm_pix_loss=True, mask_ratio=0, hidden_dropout_prob=0)
    saved = model if name == "ViTMAEForPreTraining" else model.vit
    saved.save_pretrained(tmp_path)
    ViTImageProcessor(size=32).save_pretrained(tmp_path)
    reference, info = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert memory_layout(saved.state_dict()).keys() == reference.state_dict().keys()
    for key, value in memory_layout(saved.state_dict()).items():
        assert value.equal(reference.state_dict()[key]), key
    assert reference.config.norm_pix_loss
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [name]
    assert transformers.ViTImageProcessorPil.from_pretrained(tmp_path).size.height == 32


def test_the_written_layout_is_the_hubs(random_model: Models, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert metadata == {"format": "pt"}
    assert "vit.encoder.layer.1.attention.attention.query.weight" in names
    assert "decoder.decoder_layers.1.intermediate.dense.bias" in names
    assert {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"} <= names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_half_precision_files(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path, dtype=torch.float16)
    assert model.dtype == torch.float32
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    loaded = ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert loaded.dtype == loaded.decoder.decoder_pos_embed.dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.allclose(value, loaded.state_dict()[name], atol=1e-3)
    assert ViTMAEForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    with torch.no_grad():
        model.decoder.mask_token.fill_(1e6)
    with pytest.raises(CheckpointError, match=r"decoder\.mask_token has a value that is not finite"):
        model.save_pretrained(tmp_path, dtype=torch.float16)
    assert same(ViTMAEForPreTraining.from_pretrained(tmp_path), loaded)


def test_shards_beside_their_index(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    state = model.state_dict()
    names = sorted(state)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, keys in parts.items():
        safetensors.torch.save_file({k: state[k] for k in keys}, tmp_path / file)
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    model.config.to_json_file(tmp_path / "config.json")
    assert same(ViTMAEForPreTraining.from_pretrained(tmp_path), model)
    before = find_checkpoint(tmp_path).digest()
    other = {k: state[k] + 1 for k in parts["model-2.safetensors"]}
    safetensors.torch.save_file(other, tmp_path / "model-2.safetensors")
    assert find_checkpoint(tmp_path).digest() != before
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors cannot be read"):
        ViTMAEForPreTraining.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors cannot be read"):
        find_checkpoint(tmp_path).digest()
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside its own folder"):
        ViTMAEForPreTraining.from_pretrained(tmp_path)


def test_a_layout_is_not_guessed_from_one_key() -> None:
    for lone in ("blocks.0.attn.qkv.weight", "vit.embeddings.cls_token", "layers.0.mlp.fc1.weight"):
        with pytest.raises(CheckpointError, match="not a ViTMAE's"):
            detect_layout([lone, "something.else"])


def test_sizes_that_differ_are_named(random_model: Models, tiny: Tiny, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    config = ViTMAEConfig(**tiny(image_size=64))
    message = r"vit\.embeddings\.position_embeddings is \(1, 17, 32\) and should be \(1, 65, 32\)"
    with pytest.raises(CheckpointError, match=message):
        ViTMAEForPreTraining.from_pretrained(tmp_path, config=config)


@pytest.mark.parametrize(
    ("layers", "message"), [(3, r"lacks vit\.encoder\.layer\.2\..* and 13 more"), (1, "has vit.*for which")]
)
def test_another_depth_is_refused(
    layers: int, message: str, random_model: Models, tiny: Tiny, tmp_path: Path
) -> None:
    random_model().save_pretrained(tmp_path)
    for model in (ViTMAEForPreTraining, ViTMAEModel):
        with pytest.raises(CheckpointError, match=message):
            model.from_pretrained(tmp_path, config=ViTMAEConfig(**tiny(num_hidden_layers=layers)))


def test_half_a_decoder_is_refused(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    state = model.state_dict()
    del state["decoder.mask_token"]
    with pytest.raises(CheckpointError, match=r"lacks decoder\.mask_token"):
        ViTMAEForPreTraining.from_pretrained(write_folder(model, state, tmp_path / "half"))


def test_a_head_that_is_not_needed_is_listed_as_unused(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    state = model.state_dict() | {"classifier.weight": torch.zeros(10, 32)}
    loaded = ViTMAEForPreTraining.from_pretrained(write_folder(model, state, tmp_path / "headed"))
    assert same(loaded, model)
    assert loaded.loading_info is not None
    assert loaded.loading_info.unused == ("classifier.weight",)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused(share: float, suffix: str, random_model: Models, tmp_path: Path) -> None:
    model, path = random_model(), tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"model": model.state_dict()}, path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=f"model{suffix} .*truncated"):
        ViTMAEForPreTraining.from_pretrained(path, config=model.config)


class Harmful:
    """An object whose pickle, when it is opened, creates the file `touched`."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_run(zipped: bool, random_model: Models, tmp_path: Path) -> None:
    content = {"model": random_model().state_dict(), "extra": Harmful(tmp_path / "touched")}
    path = tmp_path / "model.pth"
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Harmful(tmp_path / "touched")}, protocol=2))
    with pytest.raises(CheckpointError, match=r"model\.pth .*could run code"):
        ViTMAEForPreTraining.from_pretrained(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named(bad: float, random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state["vit.layernorm.weight"][3] = bad
    folder = write_folder(model, state, tmp_path / "bad")
    with pytest.raises(CheckpointError, match=r"vit\.layernorm\.weight has a value that is not finite"):
        ViTMAEModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ({"a.weight": torch.zeros(2)}, "not a ViTMAE's"),
        ({"a.weight": torch.zeros(2, dtype=torch.int8)}, "not floating point"),
    ],
)
def test_other_weights_are_refused(content: State, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(content, path)
    with pytest.raises(CheckpointError, match=f"other.safetensors.*{message}"):
        ViTMAEModel.from_pretrained(path)


def test_weights_of_an_unknown_width_ask_for_a_configuration(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "lone.safetensors")
    with pytest.raises(CheckpointError, match=r"no config\.json beside it"):
        ViTMAEForPreTraining.from_pretrained(tmp_path / "lone.safetensors")
    loaded = ViTMAEForPreTraining.from_pretrained(tmp_path / "lone.safetensors", config=model.config)
    assert same(loaded, model)


def test_a_config_that_breaks_a_rule_is_refused(random_model: Models, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"num_attention_heads": 5}))
    with pytest.raises(ConfigError, match="num_attention_heads=5"):
        ViTMAEModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["./gone", "/gone/model.safetensors", "weights.pth", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        find_checkpoint(name)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="has no weights file"):
        find_checkpoint(tmp_path)
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ModelNotFound, match="has 2 weights files"):
        find_checkpoint(tmp_path)


def test_loading_draws_nothing(random_model: Models, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    state = torch.get_rng_state()
    ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loaded_model_does_not_need_its_file(random_model: Models, tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    loaded = ViTMAEForPreTraining.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert same(loaded, model)


def _fields(config: ViTMAEConfig) -> dict[str, Any]:
    return {k: v for k, v in config.to_dict().items() if k != "model_type"}
