"""Whether a file can be shown as it is; `tests/web/server/test_routes.py` asks a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from vitmae_search.photos import browsers_show_alike

Encode = Callable[..., bytes]


def test_no_pixel_is_decoded_to_know(
    cat: Image.Image, encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked in the server's own process."""
    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    files = [encoded(cat, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "AVIF")]
    files.append(encoded(cat, "PNG", pnginfo=xmp))
    monkeypatch.setattr(ImageFile.ImageFile, "load", pytest.fail)
    assert [browsers_show_alike(data) for data in files] == [True] * len(files)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"words"])
def test_what_cannot_be_read_is_not_shown_as_it_is(data: bytes) -> None:
    assert not browsers_show_alike(data)


@pytest.mark.parametrize("name", ["BMP", "TIFF"])
def test_formats_that_browsers_do_not_know_or_treat_otherwise(
    cat: Image.Image, encoded: Encode, name: str
) -> None:
    assert not browsers_show_alike(encoded(cat, name))
