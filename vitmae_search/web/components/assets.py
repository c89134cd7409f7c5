"""The scripts and styles of components, which are files in `web/assets`."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "assets"


def asset(*names: str) -> str:
    """The text of files in `web/assets`, one after the other."""
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
