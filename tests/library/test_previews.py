"""Pictures as a browser shows them."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image, ImageCms

from vitmae_search.library.previews import preview


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_a_wide_gamut_comes_with_its_profile(name: str) -> None:
    """Its values are as they are stored, so without it they would be shown as another colour."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = plain.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    for profile, shown in ((wide, wide), (plain, None)):
        buffer = BytesIO()
        Image.new("RGB", (40, 30), (250, 20, 10)).save(buffer, name, icc_profile=profile)
        with Image.open(BytesIO(preview(buffer.getvalue(), 20))) as image:
            assert image.info.get("icc_profile") == shown
            assert image.convert("RGB").getpixel((9, 7)) == pytest.approx((250, 20, 10), abs=12)
