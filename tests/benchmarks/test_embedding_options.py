"""The sweep cuts every choice out of one long vector: it must be what the plugin gives with these options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.embedding_options import (
    FeatureOptions,
    FeatureSlices,
    evaluate_options,
    open_with_all_features,
    table,
)
from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    sizes = {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    config = ViTMAEConfig(**sizes, **decoder, decoder_intermediate_size=16, image_size=32, patch_size=8)
    folder = tmp_path_factory.mktemp("model")
    ViTMAEForPreTraining(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def batch(real_photos: dict[str, Path]) -> np.ndarray:
    photos = [Image.open(path).convert("RGB").resize((32, 32)) for path in real_photos.values()]
    return np.stack([np.asarray(photo) for photo in photos])


@pytest.fixture(scope="module", params=["1", "flip"])
def views(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def parts(model: str, batch: np.ndarray, views: str) -> FeatureSlices:
    with open_with_all_features(model, views) as together:
        return FeatureSlices(together.embed(batch), depth=5)


@pytest.mark.parametrize(
    ("layers", "pooling"),
    [((5,), "cls"), ((2,), "moments"), ((5, 3), "gem"), ((2, 4, 5), "cls+moments"), ((4,), "moments+mean")],
)
def test_a_choice_is_what_the_plugin_gives(
    model: str, batch: np.ndarray, parts: FeatureSlices, views: str, layers: tuple[int, ...], pooling: str
) -> None:
    cut = parts.of(FeatureOptions(layers, pooling, views))
    options = {"model": model, "layers": ",".join(map(str, layers)), "pooling": pooling, "views": views}
    with open_embedder(PluginHost().get("vitmae"), options) as plugin:
        expected = plugin.embed(batch)
    assert cut.shape == expected.shape
    assert np.abs(cut - expected).max() < 1e-5
    assert np.abs(np.roll(cut, 1, axis=0) - expected).max() > 1e-3


def test_the_table_has_a_row_for_each_choice(parts: FeatureSlices, batch: np.ndarray, views: str) -> None:
    labels = np.arange(len(batch)) % 2
    choices = [FeatureOptions((5,), "mean", views), FeatureOptions((2, 5), "cls+moments", views)]
    results = [one for choice in choices for one in evaluate_options(choice, parts, labels)]
    text = "\n".join(table(results, len(batch)))
    assert f"| 5 | mean | {views} | 16 |" in text
    assert f"| 2, 5 | cls+moments | {views} | 96 |" in text
    assert text.count("**") == 2, "one figure is the best"
