"""Classes by what a file says it is for."""

from __future__ import annotations

import os
from typing import Any

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.checkpoint.locate import find_preprocessor
from vitmae_search.vitmae.image_processor import ViTImageProcessor
from vitmae_search.vitmae.json_files import read_json

_KINDS = (
    "ViTImageProcessor",
    "ViTImageProcessorFast",
    "ViTImageProcessorPil",
    "ViTFeatureExtractor",
)


class AutoImageProcessor:
    """Makes the processor that a preprocessor_config.json names: `ViTImageProcessor`, by any of its names."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> ViTImageProcessor:
        """As `ViTImageProcessor.from_pretrained`. Raises `ConfigError` for a file of another processor."""
        path = find_preprocessor(name_or_path, revision=revision, local_files_only=local_files_only)
        values = read_json(path)
        for field in ("image_processor_type", "feature_extractor_type"):
            if values.get(field, _KINDS[0]) not in _KINDS:
                raise ConfigError(field, values[field], f"must be one of {', '.join(_KINDS)}")
        return ViTImageProcessor.from_pretrained(path, **overrides)
