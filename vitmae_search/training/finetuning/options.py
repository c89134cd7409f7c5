"""What a fine-tuning run is told: the authors' two recipes as defaults. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitmae_search.errors import ConfigError
from vitmae_search.training.shared_options import options_from_json, require, require_shared

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
    """The recipe. `FinetuneOptions.of(mode, ...)` fills in what the mode decides.

    **probe**: the encoder is frozen; BatchNorm without affine, then a linear map, as `main_linprobe.py`.
    SGD with momentum 0.9 in place of LARS, which is for batches of 16384. Features are computed once,
    for `views` views of each photo: the whole, its mirror image, then random crops.
    **full**: AdamW (0.9, 0.999), rates that shrink by `layer_decay` from layer to layer downwards,
    crops and flips, label smoothing, stochastic depth up to `drop_path`, and mixup or cutmix, whose
    numbers are the α of their Beta distribution, 0 for none. Without RandAugment and random erasing.

    `pooling` is "cls", or "mean" of the patches. The rate in use is `learning_rate · batch_size / 256`,
    even where there are fewer photos than a batch, which then is all of them. `warmup` is a share of the
    training. `val_share` of each class is held out where there is no folder for validation. The rest is
    as in `PretrainOptions`. `precision` is the encoder's in training (or for the features); a
    full fine-tuning is validated in fp32.
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
        require_shared(self)

    @classmethod
    def of(cls, mode: str, **given: Any) -> FinetuneOptions:
        """The mode's recipe with `given` over it.

        Raises `ConfigError` for values out of range, and for options that the mode has no use for.
        """
        require(mode in MODES, "mode", mode, "is probe or full")
        for name in _FULL_ONLY if mode == PROBE else _PROBE_ONLY:
            if name in given:
                raise ConfigError(name, given[name], f"has no part in mode {mode}")
        return cls(mode=mode, **{**RECIPES[mode], **given})

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate * self.batch_size / 256

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FinetuneOptions:
        """Raises `TrainingError` for a key that this version does not know."""
        return options_from_json(cls, values)
