"""Options that pretraining and fine-tuning share: their rules, their JSON, and what a resume may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

from vitmae_search.errors import ConfigError, TrainingError

RUNTIME_OPTIONS = frozenset(
    {
        *("device", "compiled", "threads", "workers", "replicas"),
        *("accumulate", "checkpoint_activations", "max_minutes", "save_minutes", "log_every"),
        "film",
    }
)
"""Options that a resume may change. Changing any other would make it another training."""


class _Options(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def crop_scale(self) -> tuple[float, float]: ...
    @property
    def precision(self) -> str: ...
    @property
    def attention(self) -> str: ...


R = TypeVar("R", bound=_Options)


def resume_options(saved: R, given: Mapping[str, Any], folder: str) -> R:
    """The saved options with the runtime options that were given now.

    Args:
        saved: The options that the run was started with.
        given: Options by name. "auto" for precision or attention means what the run already uses.
        folder: The run's folder, for the error message.

    Raises:
        TrainingError: A given option that a resume may not change differs from the saved one.
    """
    given = {name: v for name, v in given.items() if name not in ("precision", "attention") or v != "auto"}
    options = replace(saved, **given)
    changed = [n for n in given if n not in RUNTIME_OPTIONS and getattr(saved, n) != getattr(options, n)]
    if changed:
        name = changed[0]
        before, now = getattr(saved, name), getattr(options, name)
        raise TrainingError(
            f"{folder} holds a run with {name}={before!r}, and {now!r} would "
            "be another training: leave the option out to go on with it, or choose another output folder"
        )
    return options


def require(holds: bool, name: str, value: object, rule: str) -> None:
    """Raise `ConfigError` unless `holds`.

    Args:
        holds: Whether the value is allowed.
        name: The option's name.
        value: Its value.
        rule: The rule it must follow, as the end of a sentence: "must be greater than 0".
    """
    if not holds:
        raise ConfigError(name, value, rule)


def check_shared_options(options: _Options) -> None:
    """Raise `ConfigError` where one of the options that all trainings have is out of range."""
    low, high = options.crop_scale
    require(0 < low <= high <= 1, "crop_scale", options.crop_scale, "needs 0 < least ≤ greatest ≤ 1")
    precisions = ("auto", "bf16", "fp32")
    require(options.precision in precisions, "precision", options.precision, "is auto, bf16 or fp32")
    implementations = ("auto", "eager", "sdpa")
    require(options.attention in implementations, "attention", options.attention, "is auto, eager or sdpa")


def options_from_json(options_type: type[R], values: Mapping[str, Any]) -> R:
    """Options as run.json has them.

    Args:
        options_type: The dataclass of the options.
        values: The fields by name.

    Raises:
        TrainingError: There is a field that this version does not know.
    """
    unknown = sorted(set(values) - {field.name for field in fields(options_type)})
    if unknown:
        raise TrainingError(f"the run was made by another version: it has options {', '.join(unknown)}")
    make: Callable[..., R] = options_type
    pairs = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return make(**{**values, **pairs})
