"""Which patches a view hides, as its address says it.

`?mask=8x8-…` are those that a visitor painted (`masks.mask_text`). Without it, `?pattern=`, `?ratio=`
(percent) and `?seed=` say which. They are written by the page's script (`studio.js`), while one paints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vitmae_search.errors import InspectionError
from vitmae_search.inspection.masks import Mask, read_mask
from vitmae_search.mask_patterns import PATTERNS, MaskPattern

LARGEST_SEED = 2**31 - 1
LARGEST_PERCENT = 95
KEPT_WITH_PICTURE = ("mask", "pattern", "ratio", "seed", "soften", "view", "model", "second")
"""The parameters that stay when one goes on to another picture."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskParameters:
    """Which patches are hidden.

    Attributes:
        pattern: How they lie.
        ratio: The share, 0 ≤ r < 1.
        seed: Which ones.
        painted: (rows, columns), in place of all these; None where nobody painted.
    """

    pattern: MaskPattern = PATTERNS[0]
    ratio: float = 0.75
    seed: int = 0
    painted: Mask | None = None

    @property
    def name(self) -> str:
        """For names of files."""
        if self.painted is not None:
            return "painted"
        pattern = "" if self.pattern == PATTERNS[0] else f"-{self.pattern}"
        return f"{round(self.ratio * 100)}-{self.seed}{pattern}"


def read_mask_parameters(parameters: Mapping[str, str]) -> MaskParameters:
    """What an address says; whatever is nonsense in it is passed over.

    Args:
        parameters: The address's parameters.
    """
    try:
        painted = read_mask(parameters["mask"]) if "mask" in parameters else None
    except InspectionError:
        painted = None
    pattern = next((name for name in PATTERNS if name == parameters.get("pattern")), PATTERNS[0])
    percent = _whole(parameters.get("ratio", ""), 75, LARGEST_PERCENT)
    return MaskParameters(
        pattern, percent / 100, _whole(parameters.get("seed", ""), 0, LARGEST_SEED), painted
    )


def _whole(text: str, default: int, most: int) -> int:
    usable = text.isascii() and text.isdecimal() and len(text) <= 10
    return min(int(text), most) if usable else default
