"""Sensor data of cameras (RAW), which the package rawpy opens where it is installed (the extra `raw`).

The picture is the JPEG that the camera put beside the data, as the photographer saw it, if it has at least
half of the photo's width; else the data at half size, with the camera's white balance.
"""

from __future__ import annotations

import importlib.util
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin
from PIL.ExifTags import Base

from vitmae_search.errors import UnsupportedPhoto

_SIGNATURES = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM")
"""How those begin that are no TIFF files: Fuji's, Panasonic's, Olympus's, Sigma's and Minolta's."""
_CR3 = b"ftypcrx "
_CFA, _LINEAR_RAW = 32803, 34892
"""Values of PhotometricInterpretation: a color filter's single values, and those that were interpolated."""
_DNG_VERSION, _SUB_IFDS, _PHOTOMETRIC, _SUBFILE_TYPE = 50706, 330, 262, 254
_THUMBNAIL = 1
_MIN_PREVIEW = 0.5
_ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's turns as EXIF orientations."""


def can_be_decoded() -> bool:
    """Say whether the package that opens sensor data is installed."""
    return importlib.util.find_spec("rawpy") is not None


def is_raw(data: bytes) -> bool:
    """Say whether a file holds sensor data. Of a TIFF file all is needed, since its tags may be anywhere."""
    if data.startswith(_SIGNATURES) or data[4:12] == _CR3:
        return True
    return data[:4] in (b"II*\0", b"MM\0*") and (data[8:10] == b"CR" or _has_sensor_data(data))


class RawImageFile(ImageFile.ImageFile):
    """A camera's file. Its size is that of the picture which `load` gives.

    Attributes:
        photo_size: Width and height of the photo itself.
    """

    format = "RAW"
    format_description = "Sensor data of a camera"

    def _open(self) -> None:
        if not can_be_decoded():
            raise UnsupportedPhoto(None, "RAW needs the package rawpy: pip install 'vitmae-search[raw]'")
        import rawpy

        assert self.fp is not None
        self._data = self.fp.read()
        self._mode, self._preview = "RGB", None
        try:
            with rawpy.imread(BytesIO(self._data)) as raw:
                sizes = raw.sizes
                self.photo_size = sizes.width, sizes.height
                self._orientation = _ORIENTATIONS.get(sizes.flip, 1)
                self._preview = _preview(raw, self.photo_size)
        except rawpy.LibRawError as error:
            raise SyntaxError(str(error)) from error
        width, height = self.photo_size
        half = (width + 1) // 2, (height + 1) // 2
        self._size = half if self._preview is None else self._preview.size

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> Any:
        """Let the preview's decoder scale it down, as a JPEG's.

        Args:
            mode: As for a JPEG.
            size: The least width and height, in pixels.
        """
        if self._preview is None:
            return None
        drafted = self._preview.draft(mode, size)
        self._size = self._preview.size
        return drafted

    def load(self) -> Any:
        """Decode the pixels, and read the tags."""
        if self._data:
            image = self._develop() if self._preview is None else self._preview
            image.load()
            exif = self.getexif()
            if self._preview is not None and self._preview.getexif():
                exif.load(self._preview.getexif().tobytes())
            elif self._data[:2] in (b"II", b"MM"):
                exif.load(b"Exif\0\0" + self._data)
            exif.setdefault(Base.Orientation, self._orientation)
            rgb = image.convert("RGB")
            self.im, self._size, self._data = rgb.im, rgb.size, b""
        return super().load()

    def _develop(self) -> Image.Image:
        """The data at half size, not turned."""
        import rawpy

        with rawpy.imread(BytesIO(self._data)) as raw:
            return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0))


def _preview(raw: Any, photo_size: tuple[int, int]) -> JpegImagePlugin.JpegImageFile | None:
    """The camera's own JPEG, if it is there and large enough."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    if thumbnail.format != rawpy.ThumbFormat.JPEG:
        return None
    image = JpegImagePlugin.JpegImageFile(BytesIO(thumbnail.data))
    return image if max(image.size) >= _MIN_PREVIEW * max(photo_size) else None


def _has_sensor_data(data: bytes) -> bool:
    """Whether a TIFF file is a DNG, begins with a thumbnail, or has an image of a color filter's values."""
    try:
        first = _read_ifd(data, None)
        children = first.get(_SUB_IFDS, ())
        offsets = children if isinstance(children, tuple) else (children,)
        images = [first, *(_read_ifd(data, int(offset)) for offset in offsets)]
    except Exception:  # PIL's parser raises nearly anything on malformed input
        return False
    if _DNG_VERSION in first or first.get(_SUBFILE_TYPE) == _THUMBNAIL:
        return True
    return any(image.get(_PHOTOMETRIC) in (_CFA, _LINEAR_RAW) for image in images)


def _read_ifd(data: bytes, offset: int | None) -> dict[int, Any]:
    """The tags of an image of a TIFF file, of the first where there is no offset."""
    stream, tags = BytesIO(data), TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    stream.seek(tags.next if offset is None else offset)
    tags.load(stream)
    return dict(tags)
