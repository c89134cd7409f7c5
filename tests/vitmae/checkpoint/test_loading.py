"""The arguments of `from_pretrained` and `save_pretrained`, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch
import transformers

from vitmae_search.errors import CheckpointError, ConfigError, ModelNotFound
from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
)
from vitmae_search.vitmae.checkpoint.weights import parse_size

Models = Callable[..., ViTMAEForPreTraining]
Tiny = Callable[..., dict[str, Any]]


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(random_model: Models, tmp_path: Path) -> tuple[ViTMAEForPreTraining, Path]:
    model = random_model()
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


def test_fields_of_the_configuration_are_replaced(saved: tuple[Any, Path]) -> None:
    model = ViTMAEForPreTraining.from_pretrained(saved[1], mask_ratio=0.5, norm_pix_loss=True)
    assert (model.config.mask_ratio, model.config.norm_pix_loss) == (0.5, True)
    assert same(model, saved[0])
    assert model(torch.zeros(1, 3, 32, 32)).mask.sum() == 8
    with pytest.raises(ConfigError, match=r"masking=0\.5: is not a field"):
        ViTMAEForPreTraining.from_pretrained(saved[1], masking=0.5)
    with pytest.raises(CheckpointError, match="lacks"):
        ViTMAEForPreTraining.from_pretrained(saved[1], num_hidden_layers=3)


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_every_way_to_say_a_dtype(argument: str, saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    model.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    wanted: dict[Any, torch.dtype] = {
        torch.float16: torch.float16,
        "bfloat16": torch.bfloat16,
        "torch.float64": torch.float64,
        None: torch.float32,
    }
    for value, dtype in wanted.items():
        loaded: Any = ViTMAEForPreTraining.from_pretrained(folder, **{argument: value})
        assert {v.dtype for v in loaded.state_dict().values()} == {dtype}
    for place, dtype in ((folder, torch.float32), (tmp_path / "half", torch.bfloat16)):
        loaded = ViTMAEForPreTraining.from_pretrained(place, **{argument: "auto"})
        assert loaded.dtype == dtype
    for bad in ("float17", torch.int8, "Tensor"):
        with pytest.raises(ConfigError, match="must be a floating point dtype"):
            ViTMAEForPreTraining.from_pretrained(folder, **{argument: bad})


def test_a_device_is_given(saved: tuple[Any, Path]) -> None:
    for device in ("cpu", torch.device("cpu")):
        assert ViTMAEModel.from_pretrained(saved[1], device=device).device.type == "cpu"
    with torch.no_grad():
        assert ViTMAEModel.from_pretrained(saved[1], device="meta").device.type == "meta"


def test_all_of_a_model_is_on_its_device(saved: tuple[Any, Path], device: str) -> None:
    model = ViTMAEForPreTraining.from_pretrained(saved[1], device=device)
    assert {value.device.type for value in model.state_dict().values()} == {device}


def test_an_attention_is_given(saved: tuple[Any, Path]) -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    eager = ViTMAEModel.from_pretrained(saved[1], attn_implementation="eager")
    assert len(eager(pixels, output_attentions=True).attentions) == 2
    by_config = ViTMAEModel.from_pretrained(saved[1], output_attentions=True)
    assert len(by_config(pixels).attentions) == 2


def test_other_sizes_are_newly_made_where_they_may_be(tiny: Tiny, tmp_path: Path, pixels: Any) -> None:
    fields = {name: value for name, value in tiny().items() if not name.startswith("decoder_")}
    model = ViTForImageClassification(ViTConfig(**fields, num_labels=3))
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight is \(3, 32\) and should be \(5, 32\)"):
        ViTForImageClassification.from_pretrained(tmp_path, num_labels=5)
    arguments: dict[str, Any] = {"num_labels": 5, "ignore_mismatched_sizes": True}
    with pytest.warns(NewParametersWarning, match=r"classifier\.bias \(3,\) for \(5,\)"):
        loaded, info = ViTForImageClassification.from_pretrained(
            tmp_path, output_loading_info=True, **arguments
        )
    _, theirs = transformers.ViTForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True, **arguments
    )
    assert info.keys() == theirs.keys()
    mismatched = {(name, tuple(a), tuple(b)) for name, a, b in theirs["mismatched_keys"]}
    assert info["mismatched_keys"] == mismatched
    assert info["missing_keys"] == info["unexpected_keys"] == set()
    assert loaded(pixels(32, 32)).logits.shape == (2, 5)
    assert same(loaded.vit, model.vit)
    assert loaded.config.id2label == {number: f"LABEL_{number}" for number in range(5)}


def test_another_image_size_makes_new_position_tables(saved: tuple[Any, Path], tiny: Tiny) -> None:
    fresh = ViTMAEForPreTraining(ViTMAEConfig(**tiny(image_size=64)))
    with pytest.warns(NewParametersWarning, match="other sizes"):
        model = ViTMAEForPreTraining.from_pretrained(saved[1], image_size=64, ignore_mismatched_sizes=True)
    assert model.loading_info is not None
    assert {name for name, _, _ in model.loading_info.mismatched} == {
        "vit.embeddings.position_embeddings",
        "decoder.decoder_pos_embed",
    }
    assert torch.equal(model.decoder.decoder_pos_embed, fresh.decoder.decoder_pos_embed)
    assert torch.equal(model.decoder.decoder_pred.weight, saved[0].decoder.decoder_pred.weight)


def test_a_complete_load_reports_nothing(saved: tuple[Any, Path]) -> None:
    model, info = ViTMAEForPreTraining.from_pretrained(saved[1], output_loading_info=True)
    assert info == {
        "missing_keys": set(),
        "unexpected_keys": set(),
        "mismatched_keys": set(),
        "error_msgs": [],
    }
    assert same(model, saved[0])


@pytest.mark.parametrize("limit", [30_000, "30KB"])
def test_shards_go_both_ways(limit: Any, saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    model.save_pretrained(folder, max_shard_size=limit)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    count = len(shards)
    assert count > 2
    expected = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    assert shards == expected
    assert files_of(folder) == sorted(["config.json", "model.safetensors.index.json", *shards])
    sizes = [sum(v.nbytes for v in safetensors.torch.load_file(folder / s).values()) for s in shards]
    assert max(sizes) <= 30_000
    assert sum(sizes) == index["metadata"]["total_size"]
    assert same(ViTMAEForPreTraining.from_pretrained(folder), model)
    reference, info = transformers.ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    reference.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    assert not (tmp_path / "theirs/model.safetensors").exists()
    assert same(ViTMAEForPreTraining.from_pretrained(tmp_path / "theirs"), model)


def test_one_file_takes_the_place_of_shards(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    (folder / "notes.safetensors").write_bytes(b"mine")
    for limit in ("20KB", "40KB", "1GB"):
        with torch.no_grad():
            model.decoder.mask_token.add_(1)
        model.save_pretrained(folder, max_shard_size=limit)
        assert same(ViTMAEForPreTraining.from_pretrained(folder), model)
    assert files_of(folder) == ["config.json", "model.safetensors", "notes.safetensors"]


def test_a_bad_value_leaves_what_was_there(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with torch.no_grad():
        model.decoder.mask_token.fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"decoder\.mask_token has a value that is not finite"):
        model.save_pretrained(folder, max_shard_size="20KB")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(("text", "count"), [("5GB", 5 * 10**9), ("1 GiB", 2**30), ("7", 7), (9, 9)])
def test_sizes_in_bytes_or_units(text: Any, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["much", "0", "-3GB", "1TB2", "1.5GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="max_shard_size"):
        parse_size(text)


def test_a_json_file_is_found_from_any_file_beside_it(saved: tuple[Any, Path]) -> None:
    folder = saved[1]
    ViTImageProcessor(size=16).save_pretrained(folder)
    (folder / "config.json").rename(folder / "mine.json")
    assert ViTMAEConfig.from_pretrained(folder / "mine.json").image_size == 32
    (folder / "mine.json").rename(folder / "config.json")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        assert ViTMAEConfig.from_pretrained(folder / name).image_size == 32
        assert ViTImageProcessor.from_pretrained(folder / name).height_width == (16, 16)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/models--someone--mae"


def test_a_revision_is_its_own_model(random_model: Models, cache: Path) -> None:
    (cache / "refs").mkdir(parents=True)
    commits = {"main": "a" * 40, "older": "b" * 40}
    models = {}
    for number, (name, commit) in enumerate(commits.items()):
        (cache / "refs" / name).write_text(commit)
        models[name] = random_model(mask_ratio=0.5 + number / 4)
        with torch.no_grad():
            models[name].decoder.mask_token.fill_(number + 1.0)
        models[name].save_pretrained(cache / "snapshots" / commit)
    for revision, name in ((None, "main"), ("older", "older"), ("b" * 40, "older"), ("main", "main")):
        loaded = ViTMAEForPreTraining.from_pretrained("someone/mae", revision=revision, local_files_only=True)
        assert same(loaded, models[name])
        config = ViTMAEConfig.from_pretrained("someone/mae", revision=revision, local_files_only=True)
        assert config.mask_ratio == models[name].config.mask_ratio
    with pytest.raises(ModelNotFound, match="not in the local cache"):
        ViTMAEForPreTraining.from_pretrained("someone/mae", revision="never", local_files_only=True)


def test_a_cached_index_without_its_shards_is_no_model(random_model: Models, cache: Path) -> None:
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("a" * 40)
    model = random_model()
    model.save_pretrained(cache / "snapshots" / ("a" * 40), max_shard_size="20KB")
    assert same(ViTMAEForPreTraining.from_pretrained("someone/mae", local_files_only=True), model)
    next((cache / "snapshots").rglob("model-00002-*")).unlink()
    with pytest.raises(ModelNotFound, match="not in the local cache"):
        ViTMAEForPreTraining.from_pretrained("someone/mae", local_files_only=True)
