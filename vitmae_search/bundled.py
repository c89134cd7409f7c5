"""Bundled files: plugins, models and the app, inside the wheel or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

DEFAULT_MODEL = "vitmae-tiny-patch8-64"
"""The bundled model, which is used when no other is named: a folder of `data/models`."""

_PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """The path of a bundled file or folder, such as "plugins", "data/models" or "app.py".

    The wheel carries them under `vitmae_search/_bundled/`; in a checkout they lie beside the package.
    """
    in_wheel = _PACKAGE / "_bundled"
    return (in_wheel if in_wheel.is_dir() else _PACKAGE.parent) / name
