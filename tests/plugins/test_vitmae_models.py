"""Options that do not fit, models that are not there, and the list of those that are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitmae_search.bundled import bundled
from vitmae_search.embedding import PluginHost
from vitmae_search.errors import CheckpointError, ModelNotFound, PluginOptionError


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
        "import sys; from vitmae_search.embedding import ModelLister, PluginHost\n"
        "plugin = PluginHost(packages=False).get('vitmae')\n"
        "assert isinstance(plugin, ModelLister)\n"
        "print(*(m.name for m in plugin.models()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *names, loaded = done.stdout.split()
    assert loaded == "False"
    assert "facebook/vit-mae-base" in names
    bundled_models = sorted(p.parent.name for p in (bundled("data") / "models").glob("*/config.json"))
    assert names[: len(bundled_models)] == bundled_models


def test_a_bundled_model_is_listed_with_its_numbers(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    plugin = PluginHost(packages=False).get("vitmae")
    models = sys.modules[f"{type(plugin).__module__}.models"]
    shutil.copytree(checkpoint, tmp_path / "data" / "models" / "small")
    monkeypatch.setattr(models, "bundled", lambda name: tmp_path / name)
    listing = plugin.models()[0]
    assert (listing.name, listing.source) == ("small", "bundled")
    assert (listing.dimension, listing.image_size) == (32, 32)
    weights = tmp_path / "data" / "models" / "small" / "model.safetensors"
    assert listing.bytes == weights.stat().st_size
    import safetensors.torch

    assert listing.parameters == sum(t.numel() for t in safetensors.torch.load_file(weights).values())
    assert models.locate("small") == (str(weights.parent), "small")
