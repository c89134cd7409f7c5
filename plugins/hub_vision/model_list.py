"""The models that can be named: some of the hub's, and what lies in its cache. Without torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vitmae_search.hub import cached_models
from vitmae_search.records import ModelListing
from vitmae_search.regular_file import open_regular_file

NAME = "hub"
PREFIX = f"{NAME}:"
"""Before a model's name in `--model`, it chooses this plugin."""
EXTRA = "pip install 'vitmae-search[hub]'"
DEFAULT = "openai/clip-vit-base-patch32"

_WORDS = "finds photos by words, too"
_HUB_MODELS = {
    "openai/clip-vit-base-patch32": (512, 224, 151_277_313, _WORDS),
    "google/siglip-base-patch16-224": (768, 224, 203_155_970, _WORDS),
    "facebook/dinov2-base": (768, 224, 86_580_480, ""),
}
"""Well-known ones: dimension, side in pixels, number of parameters, and a note."""

_MODEL_TYPES = {
    **dict.fromkeys(("clip", "siglip", "siglip2", "metaclip_2", "align", "altclip", "chinese_clip"), _WORDS),
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "deit", "swin", "convnext"), ""),
}
"""The kinds of models that are listed where they are cached; others may work, too."""


def list_models() -> list[ModelListing]:
    """The well-known models of the hub, and what is in its cache. Opens no model and uses no network."""
    cached = [
        _cached_listing(model_id, folder, note)
        for model_id, folder in cached_models().items()
        if (note := _note(folder)) is not None
    ]
    names = {listing.name for listing in cached}
    known = (
        ModelListing(PREFIX + name, "hub", None, dimension, side, parameters, parameters * 4, _join(note))
        for name, (dimension, side, parameters, note) in _HUB_MODELS.items()
    )
    return [*cached, *(listing for listing in known if listing.name not in names)]


def _join(note: str) -> str:
    return "; ".join(filter(None, [note, "downloaded at first use"]))


def _note(folder: Path) -> str | None:
    """What to say of a cached model; None for one that is of no kind that is listed, or damaged."""
    try:
        return _MODEL_TYPES.get(_config_of(folder)["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cached_listing(model_id: str, folder: Path, note: str) -> ModelListing:
    config = _config_of(folder)
    vision = config.get("vision_config", config)
    dimension, side = config.get("projection_dim", vision.get("hidden_size")), vision.get("image_size")
    weights = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return ModelListing(
        PREFIX + model_id,
        "cached",
        os.fspath(folder),
        dimension=dimension if isinstance(dimension, int) else None,
        image_size=side if isinstance(side, int) else None,
        parameters=None,
        bytes=sum(weights) or None,
        note=note,
    )


def _config_of(folder: Path) -> dict[str, Any]:
    with open_regular_file(folder / "config.json") as file:
        config = json.load(file)
    if not isinstance(config, dict) or not isinstance(config.get("vision_config", {}), dict):
        raise ValueError("config.json is no object")
    return config
