"""Photo files on disk: the walk, stamps and digests, decoding to upright RGB, EXIF, thumbnails.

Torch-free. A bad file raises nothing but a `PhotoError`, and the walk reports what it cannot enter.
"""

from vitmae_search.photos.browsers import browsers_show_alike
from vitmae_search.photos.color import to_rgb
from vitmae_search.photos.decode import (
    DECODE_MODES,
    DECODE_REVISION,
    DecodedPhoto,
    decode,
    decode_target,
    upright_rgb,
)
from vitmae_search.photos.decode_worker import PhotoDecoder
from vitmae_search.photos.file_system import FileSystem, file_system, scan
from vitmae_search.photos.formats import (
    MEDIA_TYPES,
    PHOTO_SUFFIXES,
    decoder_versions,
    readable_suffixes,
)
from vitmae_search.photos.labels import LabelledFiles, folder_label, labels_of_csv
from vitmae_search.photos.metadata import date_in_name
from vitmae_search.photos.moving_part import find_moving_part
from vitmae_search.photos.photo_processes import PHOTO_PROCESSES, PhotoProcesses
from vitmae_search.photos.read import digest, is_stored_photo, photo_fits_memory, read_photo
from vitmae_search.photos.scan import is_under, path_on_disk, stamp_file, suffix_of
from vitmae_search.photos.thumbnails import THUMBNAIL_SIDE, ThumbnailStore, encode_thumbnail

__all__ = [
    "DECODE_MODES",
    "DECODE_REVISION",
    "MEDIA_TYPES",
    "PHOTO_PROCESSES",
    "PHOTO_SUFFIXES",
    "THUMBNAIL_SIDE",
    "DecodedPhoto",
    "FileSystem",
    "LabelledFiles",
    "PhotoDecoder",
    "PhotoProcesses",
    "ThumbnailStore",
    "browsers_show_alike",
    "date_in_name",
    "decode",
    "decode_target",
    "decoder_versions",
    "digest",
    "encode_thumbnail",
    "file_system",
    "find_moving_part",
    "folder_label",
    "is_stored_photo",
    "is_under",
    "labels_of_csv",
    "path_on_disk",
    "photo_fits_memory",
    "read_photo",
    "readable_suffixes",
    "scan",
    "stamp_file",
    "suffix_of",
    "to_rgb",
    "upright_rgb",
]
