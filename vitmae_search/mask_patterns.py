"""The names of the patterns in which patches are hidden.

They are apart from what makes the masks, as the command line lists them without loading NumPy.
"""

from __future__ import annotations

from typing import Literal, get_args

MaskPattern = Literal["random", "block", "grid"]
"""How hidden patches lie: scattered, as one rectangle, or so that the visible ones are spread evenly."""

PATTERNS: tuple[MaskPattern, ...] = get_args(MaskPattern)
