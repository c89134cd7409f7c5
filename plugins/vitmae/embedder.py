"""An open ViTMAE: photos' pixels through the whole encoder, pooled to one vector each.

The files that an embedder was read from.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import Embedder, Options
from vitmae_search.errors import CheckpointError, NoDecoder
from vitmae_search.records import Reconstruction
from vitmae_search.vitmae import (
    Checkpoint,
    CheckpointFiles,
    ViTMAEForPreTraining,
    ViTMAEModel,
    choose_device,
    find_checkpoint,
    pooled_width,
    read_checkpoint,
    reconstruct,
)
from vitmae_search.vitmae.checkpoint.weights import shards

from .devices import choose_precision, computing, device_name, prepacks
from .engine import engine_for
from .features import features_of
from .identity import identity_of, weights_digest
from .model_list import locate
from .networks import UnitVectors, levels_of, preparing_of, processor_of, require_rgb
from .openvino import OpenVINOEncoder, runtime_name


def source_files(files: CheckpointFiles) -> tuple[str, ...]:
    """Absolute paths: the files, and the folder, in which another file may come to lie.

    In the hub's cache also the note that says which revision the model's name means.
    """
    folder = files.weights.parent
    paths = {folder, files.weights, *shards(files.weights)}
    paths.update(path for path in (files.config, files.preprocessor, files.projection) if path is not None)
    if folder.parent.name == "snapshots":
        paths.add(folder.parent.parent / "refs" / "main")
    return tuple(sorted(os.path.abspath(path) for path in paths))


def open_vitmae(options: Options, *, device: str, precision: str) -> ViTMAEEmbedder:
    """Load the model that `options` name. Raises `ModelError`, `DeviceError`, `PluginOptionError`."""
    chosen = choose_device(device)
    if options["runtime"] == "openvino":
        runtime_name(chosen)  # told before anything is loaded
    source, name = locate(str(options["model"]))
    checkpoint = read_checkpoint(find_checkpoint(source))
    embedder = ViTMAEEmbedder(
        name, checkpoint, options, device=chosen, precision=choose_precision(precision, chosen)
    )
    embedder.source_files = source_files(checkpoint.files)
    return embedder


class ViTMAEEmbedder(Embedder):
    """An open ViTMAE.

    `embed` takes what `prepare` gives, (N, H, W, 3) or, of five crops, (N, 5, H, W, 3) uint8. Nothing is
    masked, so nothing is random. The decoder is read when the first reconstruction is asked for. `encoder`
    stands in for the checkpoint's own.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        options: Options,
        *,
        device: torch.device,
        precision: str,
        encoder: ViTMAEModel | None = None,
    ) -> None:
        config = checkpoint.config
        require_rgb(checkpoint, name)
        self._has_decoder = checkpoint.has_decoder
        self._described = replace(checkpoint, state={})  # its weights would be in memory twice
        self._device, self._precision = device, precision
        features = features_of(
            options, config.num_hidden_layers, config.hidden_size, checkpoint.files.projection
        )
        self.resolved_options = features.resolved_options
        self._options = {**options, **self.resolved_options}
        gem_power, views = float(options["gem_power"]), str(options["views"])
        self.projection = features.projection
        self._processor = processor_of(checkpoint, int(options["image_size"]))
        encoder = encoder or ViTMAEModel.from_checkpoint(checkpoint)
        self.model = name
        self.identity: dict[str, Any] = identity_of(
            encoder,
            self._processor,
            layers=features.layers,
            pooling=features.pooling,
            gem_power=gem_power,
            views=views,
        )
        self.provenance = {
            "device": device_name(device),
            "precision": precision,
            "torch": str(torch.__version__),
        }
        openvino = options["runtime"] == "openvino"
        if openvino:
            self.provenance["runtime"] = runtime_name(device)
        self.dimension = pooled_width(config.hidden_size, len(features.layers), features.pooling)
        self.prepare, self.input_size = preparing_of(self._processor, views)
        self._config, size = encoder.config, self._processor.height_width
        self._encoder: ViTMAEModel | OpenVINOEncoder | None = (
            OpenVINOEncoder(encoder, features.layers, size, precision) if openvino else encoder
        )
        network = UnitVectors(
            self._encoder,
            levels_of(self._processor),
            self.dimension,
            features=features,
            gem_power=gem_power,
            views=views,
        )
        self._engine = engine_for(network, self._config, size, device=device, precision=precision)
        self.batch_size = self._engine.batch_size
        self._whole: ViTMAEForPreTraining | None = None

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._engine.run(batch)

    def random_init(self, seed: int) -> ViTMAEEmbedder:
        """Its twin with the encoder that `pretrain` with this seed begins with; it cannot reconstruct."""
        assert self._encoder is not None, "closed"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = ViTMAEModel(self._config).eval()
        return ViTMAEEmbedder(
            f"{self.model} untrained",
            replace(self._described, files=replace(self._described.files, projection=None)),
            self._options,
            device=self._device,
            precision=self._precision,
            encoder=encoder,
        )

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

        def work() -> Reconstruction:
            whole.to(self._device)  # where it is, unless it rests
            with computing(self._device, "fp32"):
                return reconstruct(whole, self._processor, image, mask_ratio=mask_ratio, seed=seed, mask=mask)

        return self._engine.run_alone(work)

    def offload(self) -> None:
        """Move the weights to the host's memory until the next call."""
        self._engine.rest(*([] if self._whole is None else [self._whole]))

    def close(self) -> None:
        self._encoder = self._whole = None
        self._engine.close()

    def _with_decoder(self) -> ViTMAEForPreTraining:
        """The encoder that embeds, and the decoder from the same file, which must not have changed."""
        assert self._encoder is not None, "closed"
        if not self._has_decoder:
            raise NoDecoder(f"{self.model} is an encoder alone, so it cannot reconstruct")
        if self._whole is None:
            whole = ViTMAEForPreTraining.from_checkpoint(read_checkpoint(self._described.files))
            if weights_digest(whole.vit.state_dict()) != self.identity["weights"]:
                raise CheckpointError(f"the weights of {self.model} have changed on disk; open it again")
            if isinstance(self._encoder, ViTMAEModel) and not prepacks(self._device, self._precision):
                whole.vit = self._encoder  # others reconstruct in fp32, and so have weights of their own
            self._whole = whole.eval()
        return self._whole
