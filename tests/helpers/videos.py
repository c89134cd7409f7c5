"""Small videos that tests make: plain colors, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ImageColor

FPS = 5


def write_video(
    path: Path,
    colors: Sequence[str],
    seconds: float = 4,
    *,
    size: tuple[int, int] = (96, 64),
    codec: str = "mpeg4",
    tags: Mapping[str, str] | None = None,
    turned: int = 0,
) -> Path:
    """A video that shows each color for some seconds, with a key frame each second.

    It is to be turned by `turned` degrees, counter-clockwise, to be shown.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "use_metadata_tags"} if tags else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = FPS
        if turned:
            stream.set_display_rotation(turned)
        for color in colors:
            pixels = np.full((size[1], size[0], 3), ImageColor.getrgb(color), np.uint8)
            if turned:
                pixels[:, : size[0] // 2] = 0  # so that its sides differ
            for _ in range(int(seconds * FPS)):
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
