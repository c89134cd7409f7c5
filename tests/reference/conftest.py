"""A hub cache with a vit-mae-base of random weights, and photos for `requests`."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import requests
import torch
import transformers

from vitmae_search.vitmae import IMAGENET_MEAN, IMAGENET_STD, ViTMAEConfig, ViTMAEForPreTraining

BASE = "facebook/vit-mae-base"
COMMIT = "25b184bea5538bf5c4c852c79d221195fdd2778d"

# preprocessor_config.json of the hub, which was written in 2022.
PREPROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ViTFeatureExtractor",
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 2,
    "size": 224,
}


@pytest.fixture(scope="session")
def filled_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a hub cache. It is 450 MB, made once, and removed at the end."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / f"models--{BASE.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    _random_base().save_pretrained(snapshot)
    (snapshot / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    yield cache
    shutil.rmtree(cache)


def _random_base() -> ViTMAEForPreTraining:
    with torch.device("meta"):
        model = ViTMAEForPreTraining(ViTMAEConfig())
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.normal_(std=0.03, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value += 1
            if "pos" in name or "token" in name:
                value *= 10
    return model


@pytest.fixture
def base(filled_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub id of vit-mae-base, which is in the cache; and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(filled_cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return BASE


@pytest.fixture(scope="session")
def snapshot(filled_cache: Path) -> Path:
    """The folder with vit-mae-base in it."""
    return next(filled_cache.glob("*/snapshots/*"))


@pytest.fixture(scope="session")
def reference(snapshot: Path) -> Any:
    """The reference's model with the same weights."""
    return transformers.ViTMAEForPreTraining.from_pretrained(snapshot)


@pytest.fixture(scope="session")
def reference_processor(snapshot: Path) -> Any:
    """The reference's processor from the same file."""
    return transformers.ViTImageProcessorPil.from_pretrained(snapshot)


@pytest.fixture
def photo(real_photos: dict[str, Path]) -> Path:
    """A JPEG, which every address on the web answers with."""
    return real_photos["china"]


@pytest.fixture
def requested_urls(photo: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were requested."""
    addresses: list[str] = []

    def get(url: str, *, stream: bool = False) -> SimpleNamespace:
        addresses.append(url)
        return SimpleNamespace(raw=io.BytesIO(photo.read_bytes()))

    monkeypatch.setattr(requests, "get", get)
    return addresses
