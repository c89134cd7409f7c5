"""What may change when a run goes on: how it runs, and nothing that would make it another training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

from vitmae_search.errors import ConfigError, TrainingError

HOW_IT_RUNS = frozenset(
    {"device", "compiled", "threads", "replicas", "max_minutes", "save_minutes", "log_every"}
)
"""Options that may change when a run is resumed; all the others make another training."""


class _Options(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=_Options)


def resumed(saved: R, given: Mapping[str, Any], where: str) -> R:
    """`saved` with what a person asked for now. Raises `TrainingError` if that is another recipe."""
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
