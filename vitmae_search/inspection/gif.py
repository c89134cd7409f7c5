"""GIF animations."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from PIL import Image


def encode_gif(frames: Sequence[Image.Image], milliseconds: int | Sequence[int]) -> bytes:
    """A GIF that begins again after its last frame, for ever.

    Args:
        frames: RGB, of one size; one or more.
        milliseconds: How long each frame stays, or all.
    """
    stream = BytesIO()
    frames[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=milliseconds,
        loop=0,
        optimize=False,
    )
    return stream.getvalue()
