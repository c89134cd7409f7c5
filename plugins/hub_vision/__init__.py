"""Vision models of the hub as embedders: DINOv2, CLIP, SigLIP, ViT and whatever else `transformers` knows.

Those with a text tower (CLIP, SigLIP) find photos by words, too. `transformers`, torch and weights are loaded
in `open`; `preprocess` runs in worker processes and needs none of them.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from vitmae_search.embedding import EmbedderPlugin, Options, PluginInfo
from vitmae_search.errors import ModelError
from vitmae_search.records import ModelListing

from .model_list import DEFAULT, EXTRA, NAME, list_models

if TYPE_CHECKING:
    from .embedder import HubEmbedder


class HubVisionPlugin(EmbedderPlugin):
    """Models that `transformers` opens, by hub id or folder.

    Its options:

    - `model`: a hub id, or a folder that `save_pretrained` wrote.
    - `pooling`: what stands for the whole photo in a model without a text tower: its pooler's output, cls
      (the first token), or mean (of all tokens or places). "auto": the pooler's where the checkpoint has
      weights for one, or it needs none; else cls. A model with a text tower has its own, and takes only
      "auto".
    """

    info = PluginInfo(
        name=NAME,
        title="Hub: any vision model of transformers; CLIP and SigLIP search by words",
        options={"model": DEFAULT, "pooling": "auto"},
    )

    def open(self, options: Options, *, device: str, precision: str) -> HubEmbedder:
        """Load the model that the options name.

        Args:
            options: All of `info.options`.
            device: auto, cpu, cuda, cuda:N or mps.
            precision: auto or fp32.

        Raises:
            PluginOptionError: For a pooling that there is not, or that this model does not have.
            ModelError: Where `transformers` is not installed, or the model is not found, cannot be loaded,
                or does not look at photos.
            DeviceError: Where device or precision are not available.
        """
        if importlib.util.find_spec("transformers") is None:
            raise ModelError(f"the plugin {NAME!r} needs the package transformers: {EXTRA}")
        from .embedder import open_hub_model  # torch comes with it

        return open_hub_model(options, device=device, precision=precision)

    def models(self) -> list[ModelListing]:
        """Some well-known models of the hub, and those in the local cache."""
        return list_models()


plugin = HubVisionPlugin()
