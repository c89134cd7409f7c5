"""TIFF files whose color channels lie in planes of their own."""

from __future__ import annotations

from PIL import ImageFile, TiffImagePlugin

_RAW = 1  # no compression
_SEPARATE_PLANES = 2


def read_planes_whole(image: ImageFile.ImageFile) -> None:
    """Have a TIFF with separate planes of more than 8 bits read by libtiff.

    PIL's own reader of uncompressed files takes a 16-bit plane for one of 8 bits, and gives wrong colors
    without an error.

    Args:
        image: A TIFF file that was opened, and not loaded yet.
    """
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    if (
        tags.get(TiffImagePlugin.COMPRESSION, _RAW) != _RAW
        or tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) != _SEPARATE_PLANES
        or max(bits) <= 8
        or len(image.getbands()) == 1
    ):
        return
    width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    raw_mode = f"{image.mode};{max(bits)}N"
    image.use_load_libtiff = True
    image.tile = [ImageFile._Tile("libtiff", (0, 0, width, height), 0, (raw_mode, False, tags.offset))]
