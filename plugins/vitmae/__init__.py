"""The masked autoencoder as an embedding plugin: features of whole images, reconstructions, and classes.

Torch and weights are loaded in `open`; `preprocess` runs in worker processes and needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.embedding import EmbedderPlugin, Options, PluginInfo
from vitmae_search.records import ModelListing

from .model_list import list_models
from .options import NAME, check_options

if TYPE_CHECKING:
    from .classifier import ViTClassifier
    from .embedder import ViTMAEEmbedder


class ViTMAEPlugin(EmbedderPlugin):
    """ViTMAE and ViT checkpoints, bundled, on disk or on the hub.

    Its options:

    - `model`: a bundled model's name, a folder, a `.safetensors` or `.pth` file, or a hub id.
    - `layers`: "last", or numbers separated by commas: 0 is the embeddings, -1 the last layer. "auto": those
      that the model's projection was fitted to; the last where there is none, or other features are chosen.
    - `pooling`: cls, or of the patch tokens their mean, gem, moments (mean and standard deviation) or grid
      (the means of 4 × 4 parts of the photo), or several with a plus sign, such as cls+moments. "auto": as
      for layers, else mean.
    - `gem_power`: the signed power of gem.
    - `views`: 1, the whole photo; flip, with its mirror image; five, its four corners and the center, each
      four fifths of the side. The views' vectors are averaged, and the time grows with their number.
    - `image_size`: the input's side in pixels; 0 is the model's own, for others positions are interpolated.
    - `runtime`: what computes the layers: torch, or openvino (optional, CPU only). Both belong to one space.
      "auto": OpenVINO in long runs on a CPU where it is installed, else torch.
    - `quantization`: "int8" computes in whole numbers, by OpenVINO on a CPU, in a space of its own; or none.
    """

    info = PluginInfo(
        name=NAME,
        title="ViTMAE: features of a masked autoencoder's encoder, and its reconstructions",
        capabilities=frozenset({"embed", "reconstruct", "inspect", "classify"}),
        options={
            "model": DEFAULT_MODEL,
            "layers": "auto",
            "pooling": "auto",
            "gem_power": 3.0,
            "views": "1",
            "image_size": 0,
            "runtime": "auto",
            "quantization": "none",
        },
    )

    def open(self, options: Options, *, device: str, precision: str) -> ViTMAEEmbedder:
        """Load the model that the options name.

        Args:
            options: All of `info.options`.
            device: auto, cpu, cuda, cuda:N or mps.
            precision: auto, fp32 or bf16.

        Raises:
            PluginOptionError: For options that no model, or not this one, can satisfy.
            ModelError: Where the model is not found, or cannot be loaded.
            DeviceError: Where device or precision are not available.
        """
        check_options(options)
        from .embedder import open_vitmae  # torch comes with it

        return open_vitmae(options, device=device, precision=precision)

    def open_classifier(self, model: str, *, device: str, precision: str) -> ViTClassifier:
        """Load a `ViTForImageClassification` checkpoint: what fine-tuning writes, or any other of the kind.

        Args:
            model: As the option `model`.
            device: As for `open`.
            precision: As for `open`.

        Raises:
            ModelError: Where the model is not found, cannot be loaded, or has no classifier.
            DeviceError: Where device or precision are not available.
        """
        from .classifier import open_vit_classifier

        return open_vit_classifier(model, device=device, precision=precision)

    def models(self) -> list[ModelListing]:
        """The bundled, trained and cached models, and the authors' own on the hub."""
        return list_models()


plugin = ViTMAEPlugin()
