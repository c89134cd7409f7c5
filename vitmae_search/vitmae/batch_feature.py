"""What a processor returns."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class BatchFeature(dict[str, Any]):
    """`pixel_values` under its name, also as an attribute, so that `model(**processor(image))` works."""

    @property
    def pixel_values(self) -> Any:
        return self["pixel_values"]

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move the tensors to a device or dtype, as `Tensor.to` does."""
        moved = {k: v.to(*args, **kwargs) if isinstance(v, Tensor) else v for k, v in self.items()}
        return BatchFeature(moved)
