"""The masked autoencoder as an embedding plugin: features of whole images, reconstructions, and classes.

Torch and weights are loaded in `open`; `preparing` runs in worker processes and needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitmae_search.embedding import EmbedderPlugin, Options, PluginInfo
from vitmae_search.records import ModelListing

from .model_list import DEFAULT_MODEL, list_models
from .options import NAME, check_options

if TYPE_CHECKING:
    from .classifier import ViTClassifier
    from .embedder import ViTMAEEmbedder


class ViTMAEPlugin(EmbedderPlugin):
    """Options:

    `model`: a bundled model's name, a folder, a `.safetensors` or `.pth` file, or a hub id.
    `layers`: "last", or numbers separated by commas: 0 is the embeddings, -1 the last layer. "auto" are those
    that the model's own projection was fitted to; the last where it has none, or other features are chosen.
    `pooling`: cls, mean, gem or moments (mean and standard deviation) of the patch tokens, or several with
    a plus sign, such as cls+moments. gem has the signed power `gem_power`. auto as for layers, or mean.
    `views`: 1, the whole photo; flip, with its mirror image; five, its four corners and the middle, each
    four fifths of the side. Several take as many times as long, and their vectors are averaged.
    `image_size`: the side in pixels to look at; 0 is the model's own, others stretch its positions.
    `runtime`: what computes the layers: torch, or openvino, which is optional and for a CPU. It changes no
    space.
    """

    info = PluginInfo(
        name=NAME,
        title="ViTMAE: features of a masked autoencoder's encoder, and its reconstructions",
        capabilities=frozenset({"embed", "reconstruct", "classify"}),
        options={
            "model": DEFAULT_MODEL,
            "layers": "auto",
            "pooling": "auto",
            "gem_power": 3.0,
            "views": "1",
            "image_size": 0,
            "runtime": "torch",
        },
    )

    def open(self, options: Options, *, device: str, precision: str) -> ViTMAEEmbedder:
        check_options(options)
        from .embedder import open_vitmae  # torch comes with it

        return open_vitmae(options, device=device, precision=precision)

    def open_classifier(self, model: str, *, device: str, precision: str) -> ViTClassifier:
        """A `ViTForImageClassification` checkpoint: what fine-tuning writes, or any other of the kind."""
        from .classifier import open_vit_classifier

        return open_vit_classifier(model, device=device, precision=precision)

    def models(self) -> list[ModelListing]:
        return list_models()


plugin = ViTMAEPlugin()
