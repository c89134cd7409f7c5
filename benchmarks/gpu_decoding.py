"""nvJPEG, through torchvision, compared with ours on all cores: should the GPU decode as well as encode?

Part of `benchmarks.decoding`, for GPUs. nvJPEG decodes whole images, which are then resized on the device
(bicubic). Ours is what `index` does: with a digest, and with or without a thumbnail. What nvJPEG cannot do is
not part of its time: EXIF, thumbnails, other formats, and bad files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmarks.devices import synchronizer
from benchmarks.end_to_end import make_folder
from benchmarks.synthetic_photos import LARGE, SMALL, make_photos
from benchmarks.timing import comparison_rows, markdown_table, time_interleaved
from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import read_ahead
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode, decode_target, stamp_file
from vitmae_search.photos.prefetch import default_workers

DecodeOnDevice = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Bytes of JPEG files, each (n,) uint8 on the CPU, to images, each (3, H, W) uint8 on the device."""
_BATCH = 32
_COMPARED = 12


@dataclass(frozen=True, slots=True)
class Group:
    """Photos of one size.

    Attributes:
        size: (width, height) in pixels.
        distinct: Different photos.
        count: Files that are made of them.
    """

    size: tuple[int, int]
    distinct: int
    count: int


GROUPS = (Group(SMALL, 64, 4096), Group(LARGE, 12, 512))


def nvjpeg_decoder(device: torch.device) -> DecodeOnDevice:
    """The decoder of torchvision on a GPU.

    Raises:
        ImportError: There is no torchvision.
        RuntimeError: Torchvision was built without nvJPEG.
    """
    from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-not-found,unused-ignore]

    def decoded(files: Sequence[Tensor]) -> Sequence[Tensor]:
        pictures: Sequence[Tensor] = decode_jpeg(list(files), mode=ImageReadMode.RGB, device=device)
        return pictures

    return decoded


def report(device: torch.device, side: int, groups: Sequence[Group] = GROUPS) -> Iterator[str]:
    """Markdown tables, or why there are none.

    Args:
        device: A GPU.
        side: Side of the model's input in pixels.
        groups: The photos.
    """
    try:
        decode_on_device = nvjpeg_decoder(device)
        with tempfile.TemporaryDirectory() as name:
            path = make_photos(Path(name), (64, 48), 1)[0]
            decode_on_device([_byte_tensor(path.read_bytes())])
    except (ImportError, RuntimeError) as error:
        yield f"nvJPEG is left out, because it is not available: {type(error).__name__}: {error}"
        return
    for group in groups:
        yield from compare_group(decode_on_device, device, side, group)


def compare_group(
    decode_on_device: DecodeOnDevice, device: torch.device, side: int, group: Group, rounds: int = 3
) -> Iterator[str]:
    """Two tables: speed, and distance from exact decoding.

    Args:
        decode_on_device: Decodes with nvJPEG.
        device: The GPU.
        side: Side of the model's input in pixels.
        group: The photos.
        rounds: Timed rounds.
    """
    workers = default_workers()
    with (
        tempfile.TemporaryDirectory() as name,
        open_embedder(PluginHost().get("vitmae"), {"image_size": side}, "cpu", "fp32") as embedder,
    ):
        photos = [path.read_bytes() for path in make_photos(Path(name) / "made", group.size, group.distinct)]
        files = sorted(make_folder(Path(name) / "photos", photos, group.count, "photo").iterdir())

        def on_device() -> None:
            for start in range(0, len(files), _BATCH):
                data = [_byte_tensor(path.read_bytes()) for path in files[start : start + _BATCH]]
                resize_on_device(decode_on_device(data), side)

        def here(thumbnails: bool) -> None:
            with tempfile.TemporaryDirectory(dir=name) as folder:
                read_as_index_does(files, embedder, workers, ThumbnailStore(folder) if thumbnails else None)

        variants: dict[str, Callable[[], object]] = {
            f"ours, {workers} workers": lambda: here(True),
            "... without thumbnails": lambda: here(False),
            "nvJPEG, and the resizing": on_device,
        }
        seconds = time_interleaved(variants, rounds=rounds, synchronise=synchronizer(device))
        first = next(iter(variants))
        header, rows = comparison_rows(seconds, reference=first, count=group.count, unit="images/s")
        header[0] = f"{group.size[0]} × {group.size[1]}: {group.count} files"
        yield markdown_table(header, rows) + "\n"
        yield (
            markdown_table(*pixel_and_vector_drift(decode_on_device, photos[:_COMPARED], embedder, side))
            + "\n"
        )


def read_as_index_does(
    files: Sequence[Path], embedder: GuardedEmbedder, workers: int, thumbnails: ThumbnailStore | None
) -> None:
    """Read and decode files as `index` does.

    Args:
        files: JPEGs.
        embedder: Its `prepare` is called.
        workers: Photos read at a time.
        thumbnails: Where thumbnails are written, or None.
    """
    decoder = PhotoDecoder(embedder.prepare, thumbnails, decode_target("scaled", embedder.input_size))
    pending = [PendingFile(stamp_file(str(path))) for path in files]
    for one in read_ahead(pending, lambda digests: {}, decoder, workers=workers, batch_size=_BATCH):
        assert one.pixels is not None, one.error


def resize_on_device(pictures: Sequence[Tensor], side: int) -> Tensor:
    """Resize as Pillow does: bicubic with antialiasing.

    Args:
        pictures: Each (3, H, W) uint8.
        side: Side of the images in pixels.

    Returns:
        (N, side, side, 3) uint8.
    """
    small = [
        functional.interpolate(one[None].float(), (side, side), mode="bicubic", antialias=True)
        for one in pictures
    ]
    return torch.cat(small).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def pixel_and_vector_drift(
    decode_on_device: DecodeOnDevice, photos: Sequence[bytes], embedder: GuardedEmbedder, side: int
) -> tuple[list[str], list[list[str]]]:
    """Differences of pixels and vectors to exact decoding.

    Args:
        decode_on_device: Decodes with nvJPEG.
        photos: Bytes of JPEG files.
        embedder: Computes the vectors.
        side: Side of its input in pixels.

    Returns:
        Header and rows for `markdown_table`.
    """

    def decoded(shrink_to: int | None) -> NDArray[np.uint8]:
        images = [decode(data, shrink_to=shrink_to).image for data in photos]
        small = [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]
        return np.stack([np.asarray(image) for image in small])

    exact, default = decoded(None), decoded(decode_target("scaled", embedder.input_size))
    there = resize_on_device(decode_on_device([_byte_tensor(data) for data in photos]), side).cpu().numpy()
    vectors = embedder.embed(exact)
    header = ["from exact decoding", "levels: mean", "most", "cosine: lowest", "median"]
    rows = []
    for name, pixels in (("ours, default", default), ("nvJPEG", there)):
        apart: NDArray[Any] = np.abs(pixels.astype(np.int16) - exact)
        cosines = (embedder.embed(pixels) * vectors).sum(axis=1)
        figures = (f"{cosines.min():.6f}", f"{np.median(cosines):.6f}")
        rows.append([name, f"{apart.mean():.2f}", str(apart.max()), *figures])
    return header, rows


def _byte_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
