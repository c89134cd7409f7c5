"""Options and models that are refused, and the list of models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest

from vitmae_search.bundled import bundled
from vitmae_search.embedding import PluginHost, Projection
from vitmae_search.errors import CheckpointError, ModelNotFound, PluginOptionError
from vitmae_search.training_runs import remember_run
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel


@pytest.fixture
def plugin() -> Any:
    return PluginHost(packages=False).get("vitmae")


@pytest.fixture
def model_list(plugin: Any) -> Any:
    """The plugin's module `model_list`."""
    return sys.modules[f"{type(plugin).__module__}.model_list"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub's cache: its client read the environment when it was imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def bundle(model_list: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], Path]:
    """`bundle(checkpoint, "small")`: copies of it are all the bundled models there are."""
    monkeypatch.setattr(model_list, "bundled", lambda name: tmp_path / name)

    def copy(checkpoint: Path, name: str) -> Path:
        return shutil.copytree(checkpoint, tmp_path / "data" / "models" / name)

    return copy


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pooling": "max"}, "pooling='max' must be one of cls, mean, gem"),
        ({"pooling": "cls+max"}, "pooling='cls.max' must be one of .* or several with a plus sign"),
        ({"pooling": "cls+"}, "pooling='cls.' must be one of"),
        ({"pooling": "cls+mean+cls"}, "names a pooling twice"),
        ({"views": "2"}, "views='2' must be one of 1, flip, five"),
        ({"layers": "first"}, "layers='first' must be 'last' or whole numbers"),
        ({"layers": ""}, "layers=''"),
        ({"layers": "5"}, "there is no layer 5; the model has 4"),
        ({"layers": "-6"}, "there is no layer -6"),
        ({"layers": "4,last"}, "names a layer twice"),
        ({"layers": "0,4", "pooling": "cls"}, "the CLS token is the same for every photo"),
        ({"layers": "0,4", "pooling": "mean+cls"}, "the CLS token is the same for every photo"),
        ({"gem_power": "0"}, "gem_power=0.0 must be above 0"),
        ({"image_size": "-8"}, "image_size=-8"),
        ({"image_size": "30"}, "image_size=30 must be a multiple of the model's patch size, 8"),
    ],
)
def test_options_that_do_not_fit(open_model, options: dict[str, str], reason: str) -> None:
    with pytest.raises(PluginOptionError, match=reason):
        open_model(**options)


def test_models_that_are_not_there(open_model, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'vitmae-huge'.*a hub id looks like"):
        open_model(model="vitmae-huge")
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        open_model(model=str(tmp_path / "nowhere"))
    with pytest.raises(ModelNotFound, match="no model ''"):
        open_model(model="")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"{}")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        open_model(model=str(tmp_path / "broken.safetensors"))


def test_models_are_listed_without_torch() -> None:
    code = (
        "import sys; from vitmae_search.embedding import PluginHost\n"
        "plugin = PluginHost(packages=False).get('vitmae')\n"
        "print(*(m.name for m in plugin.models()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *names, loaded = done.stdout.split()
    assert loaded == "False"
    assert "facebook/vit-mae-base" in names
    bundled_models = sorted(p.parent.name for p in (bundled("data") / "models").glob("*/config.json"))
    assert names[: len(bundled_models)] == bundled_models


def parameter_count(folder: Path) -> int:
    import safetensors.torch

    files = folder.glob("model*.safetensors")
    return sum(t.numel() for file in files for t in safetensors.torch.load_file(file).values())


def test_a_bundled_model_is_listed_with_its_parameter_count(
    plugin, model_list, checkpoint: Path, bundle
) -> None:
    folder = bundle(checkpoint, "small")
    listing = plugin.models()[0]
    assert (listing.name, listing.source, listing.path) == ("small", "bundled", str(folder))
    assert (listing.dimension, listing.image_size) == (32, 32)
    assert listing.bytes == (folder / "model.safetensors").stat().st_size
    assert listing.parameters == parameter_count(folder)
    assert (listing.decoder, listing.projection, listing.note) == (True, False, "")
    assert model_list.locate_model("small") == (str(folder), "small")

    (folder / "projection.safetensors").write_bytes(b"")
    assert (plugin.models()[0].projection, plugin.models()[0].dimension) == (True, 32)
    head = Projection([np.ones((5, 32))], [np.zeros(5)], "head")
    head.save(folder / "projection.safetensors")
    assert plugin.models()[0].dimension == 5
    ViTMAEModel.from_pretrained(checkpoint).save_pretrained(folder)
    bare = plugin.models()[0]
    assert bare.decoder is False
    assert bare.parameters == parameter_count(folder) < listing.parameters


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", b"\x02" + b"\0" * 7 + b"[]"),
        ("model.safetensors", b"\x10" + b"\0" * 7 + b'{"a":{"shape":3}}'),
        ("config.json", b"[]"),
        ("config.json", b"{"),
    ],
)
def test_a_damaged_model_is_listed_as_that(plugin, checkpoint, bundle, file: str, content: bytes) -> None:
    (bundle(checkpoint, "a-damaged-one") / file).write_bytes(content)
    bundle(checkpoint, "b-whole-one")
    damaged, whole = plugin.models()[:2]
    assert (damaged.name, damaged.note, damaged.parameters) == (
        "a-damaged-one",
        "its files are damaged",
        None,
    )
    assert (whole.name, whole.note) == ("b-whole-one", "")


def test_a_bundled_model_without_weights_is_listed_as_that(plugin, checkpoint: Path, bundle) -> None:
    (bundle(checkpoint, "small") / "model.safetensors").unlink()
    listing = plugin.models()[0]
    assert (listing.note, listing.bytes, listing.parameters) == ("its weights are not there", None, None)


def test_models_that_were_trained_here_are_listed(plugin, checkpoint: Path, colour_model, tmp_path) -> None:
    begun, whole = tmp_path / "begun", tmp_path / "with ![md](x) name"
    begun.mkdir()
    shutil.copytree(checkpoint, whole)
    for folder in (begun, whole, colour_model):
        remember_run(folder)
    classifier, pretrained = (m for m in plugin.models() if m.source == "trained")
    assert (pretrained.name, pretrained.path, pretrained.decoder) == (str(whole), str(whole), True)
    assert (classifier.path, classifier.decoder) == (str(colour_model), False)
    assert classifier.note.startswith("a classifier")


def test_models_in_the_hubs_cache_are_listed(plugin, checkpoint: Path, cache: Path) -> None:
    def cached(model_id: str, *, without: str = "", of: Path = checkpoint) -> Path:
        repository = cache / f"models--{model_id.replace('/', '--')}"
        folder = repository / "snapshots" / ("0" * 40)
        shutil.copytree(of, folder, ignore=shutil.ignore_patterns(without))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        return folder

    assert [m.name for m in plugin.models() if m.source == "hub"] == [
        f"facebook/vit-mae-{size}" for size in ("base", "large", "huge")
    ]
    sharded = cached("someone/sharded")
    (sharded / "model.safetensors").unlink()
    ViTMAEForPreTraining.from_pretrained(checkpoint).save_pretrained(sharded, max_shard_size="40KB")
    pickled = cached("facebook/vit-mae-base", without="*.safetensors")
    (pickled / "pytorch_model.bin").write_bytes(b"x" * 1234)
    cached("someone/config-alone", without="*.safetensors")
    another = cached("someone/bert")
    config = (another / "config.json").read_text()
    (another / "config.json").write_text(config.replace('"vit_mae"', '"bert"'))
    cached("nothing/of/the/hubs")
    (cache / "models--empty--one").mkdir()

    found = {m.name: m for m in plugin.models() if m.source == "cached"}
    assert sorted(found) == ["facebook/vit-mae-base", "someone/sharded"]
    pickle, parts = found["facebook/vit-mae-base"], found["someone/sharded"]
    assert (pickle.path, pickle.bytes, pickle.parameters, pickle.decoder) == (str(pickled), 1234, None, None)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert (parts.parameters, parts.decoder) == (parameter_count(sharded), True)
    assert parts.bytes == sum(file.stat().st_size for file in sharded.glob("*.safetensors"))
    assert "facebook/vit-mae-base" not in {m.name for m in plugin.models() if m.source == "hub"}
    next(sharded.glob("*.safetensors")).unlink()
    assert "someone/sharded" not in {m.name for m in plugin.models()}


@pytest.mark.parametrize("name", ["facebook/vit-mae-base", "facebook/vit-mae-large", "facebook/vit-mae-huge"])
def test_what_is_said_of_the_hubs_models_is_so(plugin, model_list, name: str) -> None:
    """Their sizes are measured in tests/vitmae/test_named_sizes.py; here they are made without memory."""
    import torch

    named = {"base": (), "large": (1024, 24, 16, 4096), "huge": (1280, 32, 16, 5120, 14)}[name.split("-")[-1]]
    fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")
    with torch.device("meta"):
        model = ViTMAEForPreTraining(ViTMAEConfig(**dict(zip(fields, named, strict=False))))
    listing = next(m for m in plugin.models() if m.name == name)
    assert listing.parameters == sum(value.numel() for value in model.state_dict().values())
    assert (listing.dimension, listing.image_size) == (model.config.hidden_size, model.config.image_size)
    assert listing.bytes == 4 * listing.parameters
