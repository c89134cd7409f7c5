"""What the options of every kind of training share: rules, their file, and what a resume may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

from vitmae_search.errors import ConfigError, TrainingError

HOW_IT_RUNS = frozenset(
    {
        *("device", "compiled", "threads", "workers", "replicas"),
        *("accumulate", "checkpoint_activations", "max_minutes", "save_minutes", "log_every"),
    }
)
"""Options that may change when a run is resumed; all the others make another training."""


class _Options(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def crop_scale(self) -> tuple[float, float]: ...
    @property
    def precision(self) -> str: ...
    @property
    def attention(self) -> str: ...


R = TypeVar("R", bound=_Options)


def resumed(saved: R, given: Mapping[str, Any], where: str) -> R:
    """`saved` with what a person asked for now, where the precision or attention "auto" is what it has.

    Raises `TrainingError` if that is another recipe.
    """
    given = {name: v for name, v in given.items() if name not in ("precision", "attention") or v != "auto"}
    options = replace(saved, **given)
    changed = [n for n in given if n not in HOW_IT_RUNS and getattr(saved, n) != getattr(options, n)]
    if changed:
        name = changed[0]
        raise TrainingError(
            f"{where} holds a run with {name}={getattr(saved, name)!r}, and {getattr(options, name)!r} would "
            "be another training: leave the option out to go on with it, or choose another output folder"
        )
    return options


def require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(name, value, rule)


def require_shared(options: _Options) -> None:
    """Raise `ConfigError` where a choice that all trainings share is out of range."""
    low, high = options.crop_scale
    require(0 < low <= high <= 1, "crop_scale", options.crop_scale, "needs 0 < least ≤ greatest ≤ 1")
    precisions = ("auto", "bf16", "fp32")
    require(options.precision in precisions, "precision", options.precision, "is auto, bf16 or fp32")
    ways = ("auto", "eager", "sdpa")
    require(options.attention in ways, "attention", options.attention, "is auto, eager or sdpa")


def options_from_json(kind: type[R], values: Mapping[str, Any]) -> R:
    """Options as a run's file has them. Raises `TrainingError` for a key that this version does not know."""
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        raise TrainingError(f"the run was made by another version: it has options {', '.join(unknown)}")
    make: Callable[..., R] = kind
    return make(**{**values, "crop_scale": tuple(values["crop_scale"])})
