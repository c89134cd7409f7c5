"""An open ViTMAE: photos' pixels through the whole encoder, pooled to one vector each."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from vitmae_search.embedding.contract import Options
from vitmae_search.errors import CheckpointError, NoDecoder
from vitmae_search.records import Reconstruction
from vitmae_search.vitmae import (
    Checkpoint,
    Pooling,
    ViTMAEForPreTraining,
    ViTMAEModel,
    find_checkpoint,
    pool_layers,
    read_checkpoint,
    reconstruct,
)

from .choices import parse_layers
from .devices import choose_device, choose_precision, computing, device_name
from .identity import identity_of, weights_digest
from .models import locate
from .pixels import levels_of, pixel_values, processor_of, require_rgb
from .preparing import Resize


def open_vitmae(options: Options, *, device: str, precision: str) -> ViTMAEEmbedder:
    """Load the model that `options` name. Raises `ModelError`, `DeviceError`, `PluginOptionError`."""
    chosen = choose_device(device)
    source, name = locate(str(options["model"]))
    checkpoint = read_checkpoint(find_checkpoint(source))
    return ViTMAEEmbedder(
        name, checkpoint, options, device=chosen, precision=choose_precision(precision, chosen)
    )


class ViTMAEEmbedder:
    """See `contract.Embedder` and `contract.Reconstructor`.

    `embed` takes what `prepare` gives, (N, H, W, 3) uint8. Nothing is masked, so nothing is random. The
    decoder is read when the first reconstruction is asked for.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        options: Options,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        config = checkpoint.config
        require_rgb(checkpoint, name)
        self._files, self._has_decoder = checkpoint.files, checkpoint.has_decoder
        self._device, self._precision = device, precision
        self._pooling, self._gem_power = cast(Pooling, options["pooling"]), float(options["gem_power"])
        self._layers = parse_layers(str(options["layers"]), config.num_hidden_layers, self._pooling)
        self._processor = processor_of(checkpoint, int(options["image_size"]))
        encoder = ViTMAEModel.from_checkpoint(checkpoint)
        self.model = name
        self.identity: dict[str, Any] = identity_of(
            encoder, self._processor, layers=self._layers, pooling=self._pooling, gem_power=self._gem_power
        )
        self.provenance = {
            "device": device_name(device),
            "precision": precision,
            "torch": str(torch.__version__),
        }
        self.dimension = config.hidden_size * len(self._layers)
        height, width = self._processor.height_width
        self.input_size: int | None = max(height, width)
        self.prepare = Resize(height, width, self._processor.resample)
        self._encoder: ViTMAEModel | None = encoder.to(device)
        self._whole: ViTMAEForPreTraining | None = None
        self._levels = levels_of(self._processor).to(device)

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        assert self._encoder is not None, "closed"
        with computing(self._device, self._precision):
            values = pixel_values(batch, self._levels)
            states = self._encoder.encode(values, self._layers, interpolate_pos_encoding=True)
            vectors = pool_layers(states, self._pooling, power=self._gem_power)
            unit = functional.normalize(vectors.float(), dim=1)
        return np.ascontiguousarray(unit.cpu().numpy())

    def reconstruct(
        self,
        image: Image.Image,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """At the model's own size, in fp32. Raises `NoDecoder`, `ConfigError`."""
        whole = self._with_decoder()
        with computing(self._device, "fp32"):
            return reconstruct(whole, self._processor, image, mask_ratio=mask_ratio, seed=seed, mask=mask)

    def close(self) -> None:
        self._encoder = self._whole = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _with_decoder(self) -> ViTMAEForPreTraining:
        """The encoder that embeds, and the decoder from the same file, which must not have changed."""
        assert self._encoder is not None, "closed"
        if not self._has_decoder:
            raise NoDecoder(f"{self.model} is an encoder alone, so it cannot reconstruct")
        if self._whole is None:
            whole = ViTMAEForPreTraining.from_checkpoint(read_checkpoint(self._files))
            if weights_digest(whole.vit.state_dict()) != self.identity["weights"]:
                raise CheckpointError(f"the weights of {self.model} have changed on disk; open it again")
            whole.vit = self._encoder
            self._whole = whole.to(self._device).eval()
        return self._whole
