"""What a pretraining run is told: the paper's recipe as defaults, every choice an option. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitmae_search.training.shared_options import options_from_json, require, require_shared

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
"""Where photos are kept: packed, in the device's memory or the host's; or nowhere, but decoded each time."""

_POSITIVE = (
    *("epochs", "batch_size", "learning_rate", "temperature"),
    *("accumulate", "replicas", "save_minutes", "log_every"),
)
_NOT_NEGATIVE = (
    *("weight_decay", "clip_norm", "ema", "reconstruction", "contrastive"),
    *("stored_side", "workers", "threads", "seed"),
)


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """The recipe of He et al. 2022 (table 8): AdamW (0.9, 0.95), warm-up and cosine, crop and flip.

    `learning_rate` is the base rate: the rate in use is `learning_rate · batch_size / 256`.
    `warmup` is the share of the training in which the rate rises linearly (the paper: 40 of 800 epochs).
    `crop_scale` is the least and greatest area of a random crop, as a share of the picture.
    `clip_norm` 0 leaves gradients as they are. `accumulate` computes the gradient of a batch, which stays
    `batch_size` photos, in that many rounds, for less memory; `checkpoint_activations` computes activations
    twice instead of keeping them. `ema` is the decay of a running mean of the weights, which is then what
    the checkpoint holds; 0 is none. `precision` is "bf16" (autocast, fp32 weights), "fp32", or "auto",
    and `attention` "eager", "sdpa" or "auto": a new run chooses by its device, and keeps that. `compiled`
    compiles the layers before the first step; None does so on a GPU, and goes on without where torch cannot.
    `max_minutes` of training time, over all resumes: the schedule then follows epochs or time, whichever
    is further, so that the cosine always ends; such a run resumes without loss but not bit for bit.
    `init` is the checkpoint that the weights come from, encoder and decoder: a bundled name, a path or a
    hub id (default: drawn by `seed`).
    `reconstruction` and `contrastive` weigh the masked patches' error and the contrastive loss between two
    views of each photo, which at 0 is left out (see `objective`); `temperature` divides its similarities.
    `stored_side` is the side at which photos are packed, 0 for the model's image size: twice that keeps
    detail for the crops, in four times the space.
    `cache` is one of `CACHES`, "auto" the device's memory where it is a GPU's with room enough, else the
    host's; with "none", `workers` processes decode ahead, or at 0 the training itself does.
    `save_minutes` between checkpoints; `log_every` steps between lines of the log; `threads` of torch on
    the CPU, 0 for torch's own choice; `replicas` threads share each batch (see `replicas`).
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

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            require(getattr(self, name) > 0, name, getattr(self, name), "must be greater than 0")
        for name in _NOT_NEGATIVE:
            require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        learns = self.reconstruction > 0 or self.contrastive > 0
        require(learns, "reconstruction", self.reconstruction, "may be 0 only with a contrastive loss")
        for name in ("warmup", "beta1", "beta2", "ema"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        parts = self.replicas * self.accumulate
        require(parts <= self.batch_size, "batch_size", self.batch_size, f"is cut into {parts} parts")
        require(self.cache in CACHES, "cache", self.cache, f"is one of {', '.join(CACHES)}")
        require_shared(self)
        if self.max_minutes is not None:
            require(self.max_minutes > 0, "max_minutes", self.max_minutes, "must be greater than 0")

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate * self.batch_size / 256

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PretrainOptions:
        """Raises `TrainingError` for a key that this version does not know."""
        return options_from_json(cls, values)
