"""Small videos that tests make: plain colors, one after the other."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from starlette.testclient import TestClient

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


def motion_photo(video: bytes) -> bytes:
    """A JPEG with a video behind its end, and XMP that says so."""
    still = io.BytesIO()
    xmp = f'<rdf:Description GCamera:MicroVideoOffset="{len(video)}"/>'
    Image.new("RGB", (96, 64), "blue").save(still, "JPEG", xmp=xmp.encode())
    return still.getvalue() + video


def check_ranges(client: TestClient, address: str, video: bytes) -> None:
    """Check that the parts of a video that browsers ask for come alone.

    Args:
        client: Of the app.
        address: Plays the video.
        video: Its bytes.
    """
    size = len(video)
    for asked, first, behind in (
        ("0-1", 0, 2),
        ("10-", 10, size),
        ("-7", size - 7, size),
        ("5-999999999", 5, size),
    ):
        part = client.get(address, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, video[first:behind])
        assert part.headers["content-range"] == f"bytes {first}-{behind - 1}/{size}"
        assert part.headers["content-length"] == str(behind - first)
    whole = client.get(address, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
    assert (whole.status_code, whole.content) == (200, video)
    assert whole.headers["accept-ranges"] == "bytes"
    beyond = client.get(address, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
