"""An open model of the hub: photos to vectors and, where it has a text tower, words to vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import CheckpointError, DeviceError, Embedder, Options, PluginOptionError
from vitmae_search.errors import ModelError
from vitmae_search.vitmae import ViTImageProcessor, choose_device
from vitmae_search.vitmae.checkpoint.locate import source_files
from vitmae_search.vitmae.checkpoint.weights import weights_digest
from vitmae_search.vitmae.inference import Engine, device_name, inference_context
from vitmae_search.vitmae.normalization import normalization_table, pixel_values

from .checkpoint import HubCheckpoint, open_checkpoint, open_image_processor, open_tokenizer
from .model_list import NAME
from .network import OWN_POOLING, POOLINGS, HubNetwork, has_text_tower, is_vision_model
from .patches import PatchStates
from .preprocess import ResizeAndCrop

_CPU_BATCH, _GPU_BATCH = 16, 128
_TEXT_TOWER = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
"""Beginnings of the names of weights that decide no photo's vector."""
_NOT_IN_IDENTITY = {
    *("architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id", "num_labels"),
    *("initializer_range", "initializer_factor", "text_config", "logit_scale_init_value", "problem_type"),
}
"""Fields of config.json that decide no photo's vector."""
_TRIED_SIZES = ((90, 61), (47, 130), (16, 16))
"""Of noise that the plugin's `prepare` and the processor of `transformers` have to prepare alike."""


def open_hub_model(options: Options, *, device: str, precision: str) -> HubEmbedder:
    """Load the model that the options name.

    Args:
        options: The plugin's.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto or fp32.

    Raises:
        PluginOptionError: For a pooling that there is not, or that this model does not have.
        ModelError: Where the model is not found, cannot be loaded, or does not look at photos.
        DeviceError: Where device or precision are not available.
    """
    pooling = str(options["pooling"])
    if pooling not in ("auto", *POOLINGS):
        rule = f"must be one of auto, {', '.join(POOLINGS)}"
        raise PluginOptionError(NAME, f"pooling={pooling!r} {rule}")
    if precision not in ("auto", "fp32"):
        raise DeviceError(f"models of the hub are computed in fp32, not in {precision}")
    torch_device = choose_device(device)
    checkpoint = open_checkpoint(str(options["model"]))
    if not is_vision_model(checkpoint.model):
        raise ModelError(f"{checkpoint.name} does not look at photos; choose a vision model such as DINOv2")
    kind = HubTextEmbedder if has_text_tower(checkpoint.model) else HubEmbedder
    return kind(checkpoint, _choose_pooling(checkpoint, pooling), torch_device)


class HubEmbedder(Embedder):
    """An open vision model. `embed` takes what `prepare` gives, (N, H, W, 3) uint8."""

    def __init__(self, checkpoint: HubCheckpoint, pooling: str, device: torch.device) -> None:
        """Put the weights on the device.

        Args:
            checkpoint: The model.
            pooling: "projection", or one of `POOLINGS`.
            device: Where it computes.

        Raises:
            ModelError: Its image processor does more than resize, crop and normalize, or its features are
                not one vector a photo.
        """
        self.model, self._checkpoint = checkpoint.name, checkpoint
        numbers = _preprocessing(open_image_processor(checkpoint))
        prepare, normalization = _prepare_and_normalization(numbers)
        levels = normalization_table(normalization)
        _require_same_pixels(checkpoint, prepare, levels)
        self.prepare, self._resample = prepare, prepare.resample
        sides = numbers["size"] or numbers["crop"]
        self.input_size = max(sides) if isinstance(sides, list) else sides
        self.identity = _identity(checkpoint, pooling, numbers)
        self.provenance = {
            "device": device_name(device),
            "precision": "fp32",
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        }
        self.source_files = source_files(checkpoint.files, *_more_files(checkpoint))
        self.batch_size = _CPU_BATCH if device.type == "cpu" else _GPU_BATCH
        self._device, self._levels = device, levels
        self._engine = Engine(HubNetwork(checkpoint.model, levels, pooling), device, "fp32")
        self._patches: PatchStates | None = None
        self.dimension = int(self.embed(self.prepare(Image.new("RGB", (64, 64)))[None]).shape[1])

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 to (N, dimension) unit rows."""
        return self._engine.run(batch)

    def patch_tokens(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """The last states of the vision tower for each patch, (N, rows, columns, C).

        Images are resized whole, without the crop of `prepare`; to `MIN_PATCHES` patches a side where the
        model has fewer and takes more.

        Args:
            images: RGB.

        Raises:
            ModelError: The model's states are no grid over the photo.
        """
        if self._patches is None:
            height, width, _ = self.prepare(Image.new("RGB", (64, 64))).shape
            self._patches = PatchStates(self._checkpoint.model, self._levels, (height, width))
        resize = ResizeAndCrop(self._patches.shape, None, self._resample)
        return self._engine.run_network(self._patches, np.stack([resize(image) for image in images]))

    def offload(self) -> None:
        """Move the weights to the host's memory until the next call."""
        self._engine.offload()

    def close(self) -> None:
        """Release the weights."""
        self._patches = None
        self._engine.close()


class HubTextEmbedder(HubEmbedder):
    """A model with a text tower, such as CLIP: photos and words have vectors in one space."""

    _tokenizer: Any = None

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """The text's vector, (dimension,). What is longer than the model's context is cut off.

        Raises:
            ModelError: The tokenizer cannot be opened.
        """
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._checkpoint)
        tokens = self._tokenizer(
            [text],
            truncation=True,
            max_length=self._context,
            padding="max_length" if self._is_padded else True,
            return_tensors="pt",
        )

        def compute(network: HubNetwork) -> NDArray[np.float32]:
            with inference_context(self._device, "fp32"):
                vector: NDArray[np.float32] = network.text(tokens).cpu().numpy()
            return vector

        return self._engine.run_with_network(compute)

    @property
    def _context(self) -> int:
        """How many tokens the model takes."""
        text_config = getattr(self._checkpoint.model.config, "text_config", None)
        longest = getattr(text_config, "max_position_embeddings", None)
        return min(int(longest or 512), int(self._tokenizer.model_max_length))

    @property
    def _is_padded(self) -> bool:
        """Whether it was trained on texts that were filled up to its context: SigLIP reads the last token."""
        return str(self._checkpoint.config.get("model_type")).startswith("siglip")


def _choose_pooling(checkpoint: HubCheckpoint, wanted: str) -> str:
    """What "auto" means for a model. Raises `PluginOptionError`, or `CheckpointError` for missing weights."""
    pooler = {name for name in checkpoint.missing if "pooler." in f".{name}"}
    lost = sorted(checkpoint.missing - pooler)
    if lost:
        raise CheckpointError(f"{checkpoint.name} lacks weights, such as {lost[0]}")
    if has_text_tower(checkpoint.model):
        if wanted != "auto":
            rule = "is not for models with a text tower, which have their own"
            raise PluginOptionError(NAME, f"pooling={wanted!r} {rule}")
        return OWN_POOLING
    if wanted == "pooler" and pooler:
        raise PluginOptionError(NAME, f"pooling='pooler': {checkpoint.name} has no weights for a pooler")
    if wanted != "auto":
        return wanted
    config = checkpoint.model.config
    side = getattr(config, "image_size", None) or 224
    height, width = (side, side) if isinstance(side, int) else side
    with torch.inference_mode():
        output = checkpoint.model(pixel_values=torch.zeros(1, 3, int(height), int(width)))
    return "pooler" if getattr(output, "pooler_output", None) is not None and not pooler else "cls"


def _preprocessing(processor: Any) -> dict[str, Any]:
    """What happens to a photo before the model, as plain numbers; names are those of `ResizeAndCrop`."""
    has = {name: bool(getattr(processor, f"do_{name}", False)) for name in ("resize", "center_crop")}
    size, crop = _sides(processor.size) if has["resize"] else None, None
    if has["center_crop"]:
        crop = _sides(processor.crop_size)
        crop = [crop, crop] if isinstance(crop, int) else crop
    share = getattr(processor, "crop_pct", None)
    if share is not None and isinstance(size, int):  # ConvNeXT's
        size, crop = (int(size / share), [size, size]) if size < 384 else ([size, size], crop)
    normalized = bool(getattr(processor, "do_normalize", False))
    return {
        "size": size,
        "crop": crop,
        "resample": int(processor.resample),
        "rescale": float(processor.rescale_factor) if processor.do_rescale else None,
        "mean": [float(value) for value in processor.image_mean] if normalized else None,
        "std": [float(value) for value in processor.image_std] if normalized else None,
    }


def _sides(size: Any) -> list[int] | int | None:
    """[height, width], or the shorter side; None for another way to say it."""
    if isinstance(size, int):
        return size
    found: Any = size if isinstance(size, Mapping) else vars(size)
    if found.get("height") and found.get("width"):
        return [int(found.get("height")), int(found.get("width"))]
    shorter = None if found.get("longest_edge") else found.get("shortest_edge")
    return None if shorter is None else int(shorter)


def _prepare_and_normalization(numbers: Mapping[str, Any]) -> tuple[ResizeAndCrop, ViTImageProcessor]:
    size, crop = numbers["size"], numbers["crop"]
    prepare = ResizeAndCrop(
        tuple(size) if isinstance(size, list) else size,
        None if crop is None else (crop[0], crop[1]),
        numbers["resample"],
    )
    normalization = ViTImageProcessor(
        do_rescale=numbers["rescale"] is not None,
        rescale_factor=numbers["rescale"] or 1.0,
        do_normalize=numbers["mean"] is not None,
        image_mean=numbers["mean"] or [0.0] * 3,
        image_std=numbers["std"] or [1.0] * 3,
    )
    return prepare, normalization


def _require_same_pixels(checkpoint: HubCheckpoint, prepare: ResizeAndCrop, levels: torch.Tensor) -> None:
    """Raise `ModelError` unless the photos are prepared as by the image processor of `transformers`."""
    processor = open_image_processor(checkpoint)
    random = np.random.default_rng(0)
    for width, height in _TRIED_SIZES:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        try:
            expected = processor(images=image, return_tensors="pt")["pixel_values"]
            found = pixel_values(torch.from_numpy(prepare(image))[None], levels)
        except Exception as error:  # a processor may do anything
            raise ModelError(f"photos cannot be prepared for {checkpoint.name}: {error}") from error
        if expected.shape != found.shape or not torch.allclose(expected.float(), found, atol=1e-4):
            kind = type(processor).__name__.removesuffix("Pil")
            raise ModelError(
                f"{checkpoint.name} cannot be used: its {kind} does more than resize, crop and normalize"
            )


def _identity(checkpoint: HubCheckpoint, pooling: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the photos' vectors. The text tower and its tokenizer do not."""
    state = {
        name: value
        for name, value in checkpoint.model.state_dict().items()
        if not name.startswith(_TEXT_TOWER) and name not in checkpoint.missing
    }
    config = checkpoint.config
    fields = config.get("vision_config") if pooling == OWN_POOLING else config
    return {
        "weights": weights_digest(state),
        "kind": config.get("model_type"),
        "config": {
            name: value
            for name, value in (fields or {}).items()
            if name not in _NOT_IN_IDENTITY and not name.startswith("_")
        },
        "preprocessing": dict(numbers),
        "pooling": pooling,
    }


def _more_files(checkpoint: HubCheckpoint) -> list[str]:
    """Further files that decide the attributes: the processor's, and the version of `transformers`."""
    return [os.fspath(checkpoint.folder / "processor_config.json"), os.path.abspath(transformers.__file__)]
