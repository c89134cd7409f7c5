"""What a person asked to embed with and to search in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from vitmae_search.embedding import Projection

NO_PROJECTION: Final = "none"


@dataclass(frozen=True, slots=True)
class EmbedderChoice:
    """None and no options: whatever the library uses."""

    plugin: str | None = None
    model: str | None = None
    options: Mapping[str, str] | None = None
    decode: str | None = None
    projection: Projection | Literal["none"] | None = None

    @property
    def explicit(self) -> bool:
        """Whether it says how features are made. A projection alone is for the features that are there."""
        return bool(self.plugin or self.model or self.options or self.decode)

    @property
    def digest(self) -> str | None:
        """The digest of the projection; None where it is to have none, or whichever."""
        return self.projection.digest if isinstance(self.projection, Projection) else None

    def all_options(self) -> dict[str, object]:
        """The plugin's options, with `--model` among them; a path is made absolute."""
        options: dict[str, object] = dict(self.options or {})
        model = options.get("model") if self.model is None else self.model
        if isinstance(model, str):
            options["model"] = absolute_model(model)
        return options


def absolute_model(model: str) -> str:
    """A file or folder on this disk as an absolute path; any other name as it is."""
    path = os.path.expanduser(model)
    return os.path.abspath(path) if os.path.exists(path) else model


def chosen_projection(
    named: str | os.PathLike[str] | Projection | None,
) -> Projection | Literal["none"] | None:
    """What `--projection auto|none|FILE` means; None is auto. Raises `ModelError` for another file."""
    if named is None or named == "auto":
        return None
    if isinstance(named, Projection):
        return named
    return NO_PROJECTION if named == NO_PROJECTION else Projection.read(os.path.expanduser(named))
