"""Options and model presets of pretraining, without importing torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitmae_search.training.shared_options import check_shared_options, options_from_json, require

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "decoder_hidden_size": 128,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 512,
        "image_size": 64,
        "patch_size": 8,
    },
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "decoder_hidden_size": 256,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 1024,
    },
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
"""Named architectures: the fields of ViTMAEConfig that differ from its defaults, which are ViT-B/16."""

CACHES = ("auto", "device", "host", "none")
"""Where packed photos are kept: in the device's memory or the host's. "none" decodes files at every use."""

FILM_MOMENTS = ("log", "even", "none")
FILM_PHOTOS = 4
"""Photos of a film strip."""

_DECODER_HEAD_WIDTH = 32
"""Of the decoders in `PRESETS`, which also widen to four times their width within each layer."""

_POSITIVE = (
    *("epochs", "batch_size", "learning_rate", "temperature"),
    *("accumulate", "replicas", "save_minutes", "log_every"),
)
_NOT_NEGATIVE = (
    *("weight_decay", "clip_norm", "ema", "reconstruction", "contrastive"),
    *("stored_side", "workers", "threads", "seed"),
)


def decoder_fields(layers: int | None, width: int | None) -> dict[str, int]:
    """The fields of a decoder in the proportions of those in `PRESETS`.

    Args:
        layers: Number of layers; None leaves it open.
        width: A multiple of 32; None leaves it open, with the heads.

    Raises:
        ConfigError: The width is not a multiple of 32.
    """
    fields = {} if layers is None else {"decoder_num_hidden_layers": layers}
    if width is None:
        return fields
    require(
        width % _DECODER_HEAD_WIDTH == 0, "decoder_width", width, f"is a multiple of {_DECODER_HEAD_WIDTH}"
    )
    return {
        **fields,
        "decoder_hidden_size": width,
        "decoder_num_attention_heads": width // _DECODER_HEAD_WIDTH,
        "decoder_intermediate_size": 4 * width,
    }


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """Options of a pretraining run; the defaults are the recipe of He et al. 2022 (table 8).

    Attributes:
        epochs: Passes over the photos.
        batch_size: Photos of a step, over all processes.
        learning_rate: The base rate; the peak rate is `learning_rate · batch_size / 256`.
        warmup: Share of the training in which the rate rises linearly (the paper: 40 of 800 epochs). After
            that it follows half a cosine down to 0.
        weight_decay: AdamW's, on all weights but norms, biases and tokens.
        beta1: AdamW's.
        beta2: AdamW's.
        clip_norm: Greatest gradient norm; 0 for no clipping.
        accumulate: Rounds in which the gradient of a batch is computed, to need less memory.
        ema: Decay of a moving average of the weights, which is then what the checkpoint holds; 0 for none.
        crop_scale: Least and greatest area of a random crop, as a share of the photo's.
        flip: Mirror half of the crops.
        stored_side: Side in pixels at which photos are packed; 0 for the model's image size. Twice that
            keeps detail for small crops, in four times the space.
        init: Checkpoint of the initial encoder and decoder: a bundled name, a path or a hub id. None for
            random weights.
        freeze_encoder: Train only the decoder: the encoder stays the initial checkpoint's, bit for bit.
        mask_ratios: Least and greatest share of patches to remove; each step draws its own. None is the
            model's mask_ratio in every step.
        reconstruction: Weight of the masked patches' error.
        contrastive: Weight of the contrastive loss between two views of each photo (see `losses`); 0 leaves
            it out.
        temperature: Divides the similarities of the contrastive loss.
        precision: "bf16" (autocast, fp32 weights), "fp32", or "auto". A new run chooses by its device, and
            keeps that when it is resumed.
        attention: "eager", "sdpa" or "auto", chosen and kept like the precision.
        seed: Determines everything random.
        device: As for `choose_device`.
        compiled: Compile the layers before the first step. None compiles on a GPU, and continues without
            where torch cannot.
        cache: One of `CACHES`. "auto" is the device's memory on a GPU with enough room, else the host's.
        workers: Processes that decode ahead with the cache "none"; 0 decodes in the training process.
        threads: Torch's threads on a CPU; 0 for torch's default.
        replicas: Threads that share each batch on a CPU (see `cpu_replicas`).
        checkpoint_activations: Recompute activations in the backward pass in place of storing them.
        max_minutes: Training time over all resumes. The schedule then follows epochs or time, whichever is
            further, so that the cosine always ends. Such a run resumes without loss but not bit for bit.
        save_minutes: Between checkpoints.
        log_every: Steps between lines of the log.
        film: When the photos of the film strip are reconstructed, one of `FILM_MOMENTS`: before the first
            step and after 1, 2, 4, 8, … ("log"), or after every sixteenth of the training ("even"); both also
            at its end. "none" keeps no strip.
        film_photos: Files of photos for the film strip, at most four; the others are of those that the run
            learns from.
    """

    epochs: float = 100.0
    batch_size: int = 256
    learning_rate: float = 1.5e-4
    warmup: float = 0.05
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 0.0
    accumulate: int = 1
    ema: float = 0.0
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    stored_side: int = 0
    init: str | None = None
    freeze_encoder: bool = False
    mask_ratios: tuple[float, float] | None = None
    reconstruction: float = 1.0
    contrastive: float = 0.0
    temperature: float = 0.2
    precision: str = "auto"
    attention: str = "auto"
    seed: int = 0
    device: str = "auto"
    compiled: bool | None = None
    cache: str = "auto"
    workers: int = 2
    threads: int = 0
    replicas: int = 1
    checkpoint_activations: bool = False
    max_minutes: float | None = None
    save_minutes: float = 5.0
    log_every: int = 20
    film: str = "log"
    film_photos: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            require(getattr(self, name) > 0, name, getattr(self, name), "must be greater than 0")
        for name in _NOT_NEGATIVE:
            require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        learns = self.reconstruction > 0 or self.contrastive > 0
        require(learns, "reconstruction", self.reconstruction, "may be 0 only with a contrastive loss")
        if self.freeze_encoder:
            require(self.init is not None, "freeze_encoder", True, "needs an initial checkpoint")
            require(
                not self.contrastive, "freeze_encoder", True, "leaves a contrastive loss nothing to train"
            )
        if self.mask_ratios is not None:
            low, high = self.mask_ratios
            require(0 < low <= high < 1, "mask_ratios", self.mask_ratios, "needs 0 < least ≤ greatest < 1")
        for name in ("warmup", "beta1", "beta2", "ema"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        parts = self.replicas * self.accumulate
        require(parts <= self.batch_size, "batch_size", self.batch_size, f"is cut into {parts} parts")
        require(self.cache in CACHES, "cache", self.cache, f"is one of {', '.join(CACHES)}")
        require(self.film in FILM_MOMENTS, "film", self.film, f"is one of {', '.join(FILM_MOMENTS)}")
        named = len(self.film_photos)
        require(named <= FILM_PHOTOS, "film_photos", named, f"are {FILM_PHOTOS} at most")
        check_shared_options(self)
        if self.max_minutes is not None:
            require(self.max_minutes > 0, "max_minutes", self.max_minutes, "must be greater than 0")

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up, by the linear scaling rule (Goyal et al. 2017)."""
        return self.learning_rate * self.batch_size / 256

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PretrainOptions:
        """The options as `to_json` gave them. Raises `TrainingError` for an unknown field."""
        return options_from_json(cls, values)
