"""Decoding for a model of 224 pixels on one core: ours compared with PIL and the reference's processor.

    python -m benchmarks.decoding [--photos FOLDER] [--side 224]

From a file's bytes in memory to the model's input. Photos are the demo's, resized to 500 × 375 and to 12
megapixels; those of FOLDER (JPEGs, any size) make a third group. The drift is the cosine between the bundled
model's vectors after default and after exact decoding, in fp32: at its own 64 pixels and resized to 224.
"searched" are the vectors after the model's projection.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import ViTImageProcessorPil

from benchmarks.synthetic_photos import LARGE, SMALL, make_photos
from benchmarks.timing import comparison_rows, describe_machine, markdown_table, time_interleaved
from vitmae_search.embedding import GuardedEmbedder, PluginHost, Projection, open_embedder
from vitmae_search.photos import decode, decode_target, digest, encode_thumbnail

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
REFERENCE = "PIL and HF's processor"
COUNTS = {SMALL: 60, LARGE: 8}
MAX_TIMED = 12
"""Photos of FOLDER that are timed, at most. The drift is computed on all of them."""


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER")
    parser.add_argument("--side", type=int, default=224)
    chosen = parser.parse_args()
    pin_to_one_core()
    with tempfile.TemporaryDirectory() as name:
        groups = {
            f"{size[0]} × {size[1]}, made": read_files(make_photos(Path(name) / str(size[0]), size, count))
            for size, count in COUNTS.items()
        }
    if chosen.photos is not None:
        groups["of the folder"] = read_files(sorted(chosen.photos.rglob("*.[jJ][pP]*[gG]")))
    print(f"One core. {describe_machine('pillow', 'transformers', 'torch')}\n")
    for name, photos in groups.items():
        timed = photos[:: max(1, len(photos) // MAX_TIMED)] if name == "of the folder" else photos
        header, rows = comparison_rows(
            time_interleaved(variants(timed, chosen.side)),
            reference=REFERENCE,
            count=len(timed),
            unit="images/s",
        )
        header[0] = f"{name}: {len(timed)} photos, {np.mean([len(data) for data in timed]) / 1e6:.2f} MB each"
        print(markdown_table(header, rows), "\n")
    print(markdown_table(*cosine_drift(groups)))


def pin_to_one_core() -> None:
    """Run this process and all its threads on one core."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def read_files(paths: Sequence[Path]) -> list[bytes]:
    """The bytes of each file."""
    return [path.read_bytes() for path in paths]


def variants(photos: Sequence[bytes], side: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name: each decodes and prepares all photos.

    Args:
        photos: Bytes of JPEG files.
        side: Side of the model's input in pixels.
    """
    processor = ViTImageProcessorPil(size={"height": side, "width": side}, image_mean=MEAN, image_std=STD)
    embedder = open_embedder(PluginHost().get("vitmae"), {"image_size": side}, "cpu", "fp32")
    prepare, shrink_to = embedder.prepare, decode_target("scaled", embedder.input_size)
    embedder.close()

    def reference(data: bytes) -> object:
        return processor(Image.open(BytesIO(data)).convert("RGB"), return_tensors="np")["pixel_values"]

    def indexed(data: bytes) -> object:
        digest(data)
        photo = decode(data, shrink_to=shrink_to)
        encode_thumbnail(photo.image)
        return prepare(photo.image)

    each: dict[str, Callable[[bytes], object]] = {
        REFERENCE: reference,
        "ours, exact": lambda data: prepare(decode(data).image),
        "ours, default": lambda data: prepare(decode(data, shrink_to=shrink_to).image),
        "... with digest and thumbnail": indexed,
    }
    return {name: partial(_apply_to_all, variant, photos) for name, variant in each.items()}


def _apply_to_all(variant: Callable[[bytes], object], photos: Sequence[bytes]) -> None:
    for data in photos:
        variant(data)


def cosine_drift(groups: dict[str, list[bytes]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the lowest and the median cosine of each group, at two input sizes."""
    header = ["cosine to exact decoding", "side", "photos", "lowest", "median", "searched: lowest", "median"]
    rows = []
    for side in (64, 224):
        with open_embedder(PluginHost().get("vitmae"), {"image_size": side}, "cpu", "fp32") as embedder:
            assert embedder.projection is not None
            projection = Projection.read(Path(embedder.projection))
            shrink_to = decode_target("scaled", embedder.input_size)
            for name, photos in groups.items():
                pairs = np.stack([_exact_and_default(embedder, data, shrink_to) for data in photos])
                found = [(v[:, 0] * v[:, 1]).sum(axis=1) for v in (pairs, _projected(projection, pairs))]
                cells = [
                    f"{figure:.6f}" for cosines in found for figure in (cosines.min(), np.median(cosines))
                ]
                rows.append([name, str(side), str(len(photos)), *cells])
    return header, rows


def _exact_and_default(embedder: GuardedEmbedder, data: bytes, shrink_to: int | None) -> NDArray[np.float32]:
    """(2, D): after exact and after default decoding."""
    images = (decode(data, shrink_to=target).image for target in (None, shrink_to))
    return embedder.embed(np.stack([embedder.prepare(image) for image in images]))


def _projected(projection: Projection, pairs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 2, D) to (N, 2, projection.dimension)."""
    return projection(pairs.reshape(-1, pairs.shape[2])).reshape(len(pairs), 2, -1)


if __name__ == "__main__":
    main()
