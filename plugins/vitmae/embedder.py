"""An open ViTMAE: photos through the whole encoder, pooled to one vector each, and reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vitmae_search.embedding import Embedder, Options
from vitmae_search.errors import CheckpointError, NoDecoder
from vitmae_search.records import Inspection, Reconstruction
from vitmae_search.vitmae import (
    Checkpoint,
    ViTMAEForPreTraining,
    ViTMAEModel,
    choose_device,
    find_checkpoint,
    pool_layers,
    pool_shares,
    pooled_width,
    read_checkpoint,
    reconstruct,
    tokens_and_attention,
)
from vitmae_search.vitmae.checkpoint.locate import source_files
from vitmae_search.vitmae.checkpoint.weights import weights_digest
from vitmae_search.vitmae.inference import device_name, inference_context
from vitmae_search.vitmae.normalization import normalization_table, pixel_values

from .cpu_threads import is_small, one_thread
from .devices import choose_precision, warn_without_int8
from .engine import engine_for
from .features import resolve_features
from .identity import embedder_identity
from .model_list import locate_model
from .networks import PatchTokens, UnitVectors, make_prepare, make_processor, require_rgb
from .openvino import OpenVINOCompiler, OpenVINOEncoder, is_installed, require_openvino, runtime_name
from .preprocess import Resize
from .quantization import Quantization

MIN_PATCHES = 12
"""Patches on a side of the images of `patch_tokens`, at least: then a ninth of a photo has 4 × 4."""


def open_vitmae(options: Options, *, device: str, precision: str) -> ViTMAEEmbedder:
    """Load the model that the options name.

    Args:
        options: The plugin's, checked by `check_options`.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.

    Raises:
        PluginOptionError: For options that this model cannot satisfy.
        ModelError: Where the model is not found, or cannot be loaded.
        DeviceError: Where device, precision or runtime are not available.
    """
    torch_device = choose_device(device)
    if options["quantization"] != "none":
        require_openvino(torch_device, f"quantization={options['quantization']}")
        warn_without_int8(torch_device)
    elif options["runtime"] == "openvino":
        require_openvino(torch_device)  # fails before anything is loaded
    source, name = locate_model(str(options["model"]))
    with one_thread():
        checkpoint = read_checkpoint(find_checkpoint(source))
    embedder = ViTMAEEmbedder(
        name, checkpoint, options, device=torch_device, precision=choose_precision(precision, torch_device)
    )
    embedder.source_files = source_files(checkpoint.files)
    return embedder


class ViTMAEEmbedder(Embedder):
    """An open ViTMAE.

    `embed` takes what `prepare` gives, (N, H, W, 3) or, of five crops, (N, 5, H, W, 3) uint8. Nothing is
    masked, so nothing is random. The decoder is loaded for the first reconstruction.
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
        """Put the weights on the device.

        Args:
            name: For people.
            checkpoint: Configuration and weights.
            options: The plugin's.
            device: Where it computes.
            precision: fp32 or bf16.
            encoder: Used in place of the checkpoint's, for the network before training.
        """
        config = checkpoint.config
        require_rgb(checkpoint, name)
        self._has_decoder = checkpoint.has_decoder
        self._checkpoint = replace(checkpoint, state={})  # the weights would be in memory twice
        self._device, self._precision = device, precision
        features = resolve_features(
            options, config.num_hidden_layers, config.hidden_size, checkpoint.files.projection
        )
        self.resolved_options = features.resolved_options
        self._options = {**options, **self.resolved_options}
        gem_power, views = float(options["gem_power"]), str(options["views"])
        quantized = options["quantization"] == "int8"
        self.projection = features.projection
        self._processor = make_processor(checkpoint, int(options["image_size"]))
        given = encoder
        with one_thread():
            encoder = encoder or ViTMAEModel.from_checkpoint(checkpoint)
        self.model = name
        self.identity: dict[str, Any] = embedder_identity(
            encoder,
            self._processor,
            layers=features.layers,
            pooling=features.pooling,
            gem_power=gem_power,
            views=views,
            quantized=quantized,
        )
        self.provenance = {
            "device": device_name(device),
            "precision": "int8" if quantized else precision,
            "torch": str(torch.__version__),
        }
        self.dimension = pooled_width(config.hidden_size, len(features.layers), features.pooling)
        self.prepare, self.input_size = make_prepare(self._processor, views)
        self._config, size = encoder.config, self._processor.height_width
        self._encoder: ViTMAEModel | OpenVINOEncoder | None = encoder
        compiler = OpenVINOCompiler(
            self._load_encoder,
            features.layers,
            size,
            "fp32" if quantized else precision,
            self.identity,
            Quantization(self._processor) if quantized else None,
        )
        runtime = "openvino" if quantized else str(options["runtime"])
        if runtime == "openvino":
            self._encoder = replace(compiler, load_encoder=lambda: encoder).compile()
            self.provenance["runtime"] = runtime_name()
        in_long_runs = runtime == "auto" and device.type == "cpu" and given is None and is_installed()
        if in_long_runs:
            self.provenance["runtime"] = f"torch; {runtime_name()} in long runs"
        network = UnitVectors(
            self._encoder,
            normalization_table(self._processor),
            self.dimension,
            features=features,
            gem_power=gem_power,
            views=views,
            grid_size=(size[0] // config.patch_shape[0], size[1] // config.patch_shape[1]),
        )
        self._engine = engine_for(
            network,
            self._config,
            size,
            device=device,
            precision=precision,
            compiler=compiler if in_long_runs else None,
        )
        self.batch_size = self._engine.batch_size
        self._layer = max(features.layers)
        self._levels = network.levels
        self._patch_tokens: PatchTokens | None = None
        self._pretraining_model: ViTMAEForPreTraining | None = None
        self._features = features
        self._inspected: ViTMAEModel | None = None
        self._whole = Resize(*self._processor.height_width, self._processor.resample)

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, H, W, 3) or (N, 5, H, W, 3) uint8 to (N, dimension) unit rows."""
        return self._engine.run(batch)

    def random_init(self, seed: int) -> ViTMAEEmbedder:
        """The same embedder with the encoder that `pretrain` with this seed starts from; no decoder."""
        assert self._encoder is not None, "closed"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = ViTMAEModel(self._config).eval()
        return ViTMAEEmbedder(
            f"{self.model} untrained",
            replace(self._checkpoint, files=replace(self._checkpoint.files, projection=None)),
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
        """Hide patches and fill them in again, at the model's own size, in fp32.

        Args:
            image: RGB.
            mask_ratio: The fraction of patches to hide, 0 ≤ r < 1.
            seed: Decides which.
            mask: (gh, gw), True = hidden; overrides `mask_ratio` and `seed`.

        Raises:
            NoDecoder: Where the checkpoint is an encoder alone.
            ConfigError: For a mask or ratio that does not fit.
            CheckpointError: Where the file has changed since it was opened.
        """
        model = self._with_decoder()
        small = self._device.type == "cpu" and is_small(model)

        def compute() -> Reconstruction:
            model.to(self._device)  # it may have been offloaded
            with one_thread() if small else nullcontext(), inference_context(self._device, "fp32"):
                return reconstruct(model, self._processor, image, mask_ratio=mask_ratio, seed=seed, mask=mask)

        return self._engine.run_alone(compute)

    def inspect(self, image: Image.Image) -> Inspection:
        """Embed an image in fp32, and keep what is computed on the way.

        Features of several views are no sum over the patches of one image: they have no shares.

        Args:
            image: RGB.

        Raises:
            CheckpointError: Where the file has changed since it was opened.
        """
        if self._inspected is None:
            self._inspected = self._load_encoder()
        model, features = self._inspected, self._features
        whole = self._whole(image)
        grid = (whole.shape[0] // self._config.patch_shape[0], whole.shape[1] // self._config.patch_shape[1])
        pixels = pixel_values(torch.tensor(whole[None]), normalization_table(self._processor)).contiguous()

        def compute() -> tuple[Tensor, Tensor]:
            with inference_context(self._device, "fp32"):
                return tokens_and_attention(model.to(self._device), pixels)

        tokens, attention = self._engine.run_alone(compute)
        states = [tokens[layer : layer + 1] for layer in features.layers]
        power = float(self._options["gem_power"])
        if self._options["views"] == "1":
            pooled = pool_layers(states, features.pooling, power=power, grid_size=grid)
            vector = functional.normalize(pooled, dim=1)[0].numpy()
            shares = pool_shares(states, features.pooling, power=power, grid_size=grid)
        else:
            vector, shares = self.embed(self.prepare(image)[None])[0], None
        return Inspection(
            picture=whole,
            grid=grid,
            tokens=tokens.numpy(),
            attention=attention.numpy(),
            features=vector,
            shares=None if shares is None else shares.numpy(),
        )

    def patch_tokens(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """The last layer's patch tokens of images, (N, rows, columns, hidden_size).

        Images are resized to the model's size or, where that has fewer, to `MIN_PATCHES` patches a side, so
        that a small part of a photo has several of its own.

        Args:
            images: RGB.
        """
        (ph, pw), (height, width) = self._config.patch_shape, self._processor.height_width
        rows, columns = max(MIN_PATCHES, height // ph), max(MIN_PATCHES, width // pw)
        resize = Resize(rows * ph, columns * pw, self._processor.resample)
        batch = np.stack([resize(image) for image in images])
        found = self._engine.run_network(self._with_patch_tokens(), batch)
        return found.reshape(len(images), rows, columns, -1)

    def offload(self) -> None:
        """Move the weights to the host's memory until the next call."""
        others = (self._pretraining_model, self._inspected, self._patch_tokens)
        self._engine.offload(*(model for model in others if model is not None))

    def close(self) -> None:
        """Release the weights."""
        self._encoder = self._pretraining_model = self._inspected = self._patch_tokens = None
        self._engine.close()

    def _with_decoder(self) -> ViTMAEForPreTraining:
        """Encoder and decoder. The decoder is loaded from the same file, which must not have changed."""
        assert self._encoder is not None, "closed"
        if not self._has_decoder:
            raise NoDecoder(f"{self.model} is an encoder alone, so it cannot reconstruct")
        if self._pretraining_model is None:
            model = ViTMAEForPreTraining.from_checkpoint(read_checkpoint(self._checkpoint.files))
            self._require_unchanged(model.vit)
            if isinstance(self._encoder, ViTMAEModel) and self._precision == "fp32":
                model.vit = self._encoder  # shared; other encoders are not in fp32, as reconstructing needs
            self._pretraining_model = model.eval()
        return self._pretraining_model

    def _with_patch_tokens(self) -> PatchTokens:
        """The network of `patch_tokens`. It shares the encoder where that is torch's."""
        assert self._encoder is not None, "closed"
        if self._patch_tokens is None:
            shared = isinstance(self._encoder, ViTMAEModel)
            encoder = self._encoder if isinstance(self._encoder, ViTMAEModel) else self._load_encoder()
            levels = self._levels if shared else normalization_table(self._processor)
            self._patch_tokens = PatchTokens(encoder, levels, self._layer)
        return self._patch_tokens

    def _load_encoder(self) -> ViTMAEModel:
        """The encoder in fp32, from the same file."""
        encoder = ViTMAEModel.from_checkpoint(read_checkpoint(self._checkpoint.files)).eval()
        self._require_unchanged(encoder)
        return encoder

    def _require_unchanged(self, encoder: ViTMAEModel) -> None:
        if weights_digest(encoder.state_dict()) != self.identity["weights"]:
            raise CheckpointError(f"the weights of {self.model} have changed on disk; open it again")
