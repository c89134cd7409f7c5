"""Options and recipes of fine-tuning, without importing torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitmae_search.errors import ConfigError
from vitmae_search.training.shared_options import check_shared_options, options_from_json, require

PROBE = "probe"
FULL = "full"
MODES = (PROBE, FULL)
POOLINGS = ("cls", "mean")

RECIPES: dict[str, dict[str, Any]] = {
    PROBE: {
        "epochs": 90.0,
        "batch_size": 256,
        "learning_rate": 0.1,
        "warmup": 0.1,
        "weight_decay": 0.0,
        "layer_decay": 1.0,
        "label_smoothing": 0.0,
        "drop_path": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "precision": "fp32",
    },
    FULL: {
        "epochs": 100.0,
        "batch_size": 128,
        "learning_rate": 5e-4,
        "warmup": 0.05,
        "weight_decay": 0.05,
        "layer_decay": 0.75,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "precision": "auto",
    },
}
"""Defaults that depend on the mode (He et al. 2022, tables 9 and 10, and `facebookresearch/mae`)."""

_PROBE_ONLY = ("views",)
_FULL_ONLY = ("layer_decay", "drop_path", "mixup", "cutmix", "clip_norm")


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """Options of a fine-tuning run. `FinetuneOptions.for_mode` fills in the recipe of a mode.

    **probe**: the encoder is frozen; BatchNorm without affine, then a linear layer, as `main_linprobe.py` of
    facebookresearch/mae. SGD with momentum 0.9 replaces LARS, which is for batches of 16384. Features are
    computed once for several views of each photo.

    **full**: as `main_finetune.py`, without RandAugment and random erasing: AdamW (0.9, 0.999), layer-wise
    learning-rate decay, random crops, label smoothing, stochastic depth, mixup and CutMix. Validation is in
    fp32.

    Attributes:
        mode: "probe" or "full".
        epochs: Passes over the training photos.
        batch_size: Photos of a step; at most all of them.
        learning_rate: The base rate; the peak rate is `learning_rate · batch_size / 256`, even where there
            are fewer photos than a batch.
        warmup: Share of the training in which the rate rises linearly.
        weight_decay: On all weights but norms, biases, the CLS token and positions.
        layer_decay: Full: a layer's rate as a share of that of the layer above it.
        label_smoothing: The probability spread over all classes.
        drop_path: Full: the last layer's rate of stochastic depth.
        mixup: Full: α of mixup's Beta distribution; 0 for none.
        cutmix: Full: α of CutMix's Beta distribution; 0 for none.
        precision: "auto", "bf16" or "fp32", of the encoder in training or for the features.
        pooling: "cls", or "mean" of the patch tokens.
        views: Probe: views of each photo: the whole, its mirror image, then random crops.
        clip_norm: Full: greatest gradient norm; 0 for no clipping.
        crop_scale: Least and greatest area of a random crop, as a share of the photo's.
        flip: Mirror half of the crops.
        val_share: Share of each class to validate on, where there is no folder for validation.
        stored_side: Side in pixels at which photos are packed; 0 for the model's image size.
        attention: "auto", "eager" or "sdpa".
        seed: Determines everything random.
        device: As for `choose_device`.
        threads: Torch's threads on a CPU; 0 for torch's default.
        save_minutes: Between checkpoints.
    """

    mode: str
    epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    layer_decay: float
    label_smoothing: float
    drop_path: float
    mixup: float
    cutmix: float
    precision: str
    pooling: str = "cls"
    views: int = 2
    clip_norm: float = 0.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = True
    val_share: float = 0.2
    stored_side: int = 0
    attention: str = "auto"
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        require(self.mode in MODES, "mode", self.mode, "is probe or full")
        require(self.pooling in POOLINGS, "pooling", self.pooling, "is cls or mean")
        require(self.batch_size > 1, "batch_size", self.batch_size, "must be greater than 1")
        for name in ("epochs", "learning_rate", "save_minutes", "views"):
            require(getattr(self, name) > 0, name, getattr(self, name), "must be greater than 0")
        for name in ("weight_decay", "clip_norm", "stored_side", "threads", "seed", "mixup", "cutmix"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        for name in ("warmup", "label_smoothing", "drop_path"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        require(0 < self.val_share < 1, "val_share", self.val_share, "must be between 0 and 1")
        require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "must be in (0, 1]")
        check_shared_options(self)

    @classmethod
    def for_mode(cls, mode: str, **given: Any) -> FinetuneOptions:
        """The recipe of a mode with some options changed.

        Args:
            mode: "probe" or "full".
            given: The changed options.

        Raises:
            ConfigError: A value is out of range, or an option belongs to the other mode.
        """
        require(mode in MODES, "mode", mode, "is probe or full")
        for name in _FULL_ONLY if mode == PROBE else _PROBE_ONLY:
            if name in given:
                raise ConfigError(name, given[name], f"has no part in mode {mode}")
        return cls(mode=mode, **{**RECIPES[mode], **given})

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up, by the linear scaling rule (Goyal et al. 2017)."""
        return self.learning_rate * self.batch_size / 256

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FinetuneOptions:
        """The options as `to_json` gave them. Raises `TrainingError` for an unknown field."""
        return options_from_json(cls, values)
