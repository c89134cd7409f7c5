"""From JPEG files to a library that can be searched, beside the reference's published way.

    python -m benchmarks.end_to_end [--model base|shipped] [--precision auto] [--rounds 5]

The reference's way: for each file `Image.open`, HF's image processor, HF's `ViTMAEModel` in fp32 at
mask_ratio 0, the mean of the patch tokens, `faiss.IndexFlatIP.add`; and the same in batches. Ours is
`Library.index` with thumbnails: the catalogue is committed and the index file saved. "decoding alone" reads,
digests, decodes and makes the thumbnails of the same files in as many threads as there are cores, "encoding
alone" embeds the same pixels; one after the other is what both allow together, and the share is how much of
that a whole run reaches.

`base` is a ViT-B/16 of 224 pixels with random weights, made for the run: for speed only. The photos are those
of `benchmarks.photographs`, each file with a few bytes more at its end, so that no content comes twice.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from benchmarks.measuring import cores, interleaved, machine, ratios, rounded, table
from benchmarks.photographs import LARGE, SMALL, make_photos
from vitmae_search.bundled import bundled
from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.indexing.embed import batch_size_for
from vitmae_search.indexing.plan import Job
from vitmae_search.indexing.reading import Reading
from vitmae_search.library import Library
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode_target, stamp_file

SHIPPED = bundled("data") / "models" / "vitmae-tiny-patch8-64"
BATCH = 32


@dataclass(frozen=True, slots=True)
class Case:
    """`ours` files a round through `Library.index`, and `reference` of them through the reference's way."""

    model: str
    size: tuple[int, int]
    ours: int
    reference: int


CASES = (
    Case("base", SMALL, 64, 8),
    Case("base", LARGE, 64, 4),
    Case("shipped", SMALL, 256, 32),
    Case("shipped", LARGE, 96, 6),
)
_DISTINCT = {SMALL: 64, LARGE: 12}
_MEMORY = (64, 256)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("base", "shipped"), help="one of both only")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    quieten()
    cases = [case for case in CASES if chosen.model in (None, case.model)]
    print(f"{machine('torch', 'transformers', 'pillow', 'faiss-cpu')}\n")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        photos = {
            size: [path.read_bytes() for path in make_photos(home / "made", size, _DISTINCT[size])]
            for size in dict.fromkeys(case.size for case in cases)
        }
        print(table(HEADER, [_row(case, photos[case.size], home, chosen) for case in cases]), "\n")
        print(_memory(photos[cases[-1].size], home))


def quieten() -> None:
    """No progress bars and no list of the decoder's weights, which are not used here."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # read when it is imported, which is later
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


HEADER = (
    *("model", "photos", "reference, images/s", "in a batch", "ours", "× reference", "× batch"),
    *("decoding alone", "encoding alone", "share"),
)


def _row(case: Case, photos: Sequence[bytes], home: Path, chosen: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory(dir=home) as name:
        folders = _folders(Path(name) / "photos", photos, case.ours, chosen.rounds + 1)
        model = SHIPPED if case.model == "shipped" else _random_base(Path(name) / "base")
        with Library.open(Path(name) / "library", model=str(model), precision=chosen.precision) as library:
            library.index(_folder(Path(name) / "first", photos, 4 * BATCH, "first"))  # opens the model
            ways = Ways(library, model, chosen.precision, case, folders)
            seconds = interleaved(ways.all(), rounds=chosen.rounds)
    counts = {"reference": case.reference, "batches": case.reference * 2}
    each = {name: taken / counts.get(name, case.ours) for name, taken in seconds.items()}
    figures = {name: 1 / float(np.median(taken)) for name, taken in each.items()}
    share = float(np.median((each["decoding"] + each["encoding"]) / each["ours"]))
    times = (ratios(each, other)["ours"] for other in ("reference", "batches"))
    return [
        case.model,
        f"{case.size[0]} × {case.size[1]}",
        *(rounded(figures[name]) for name in ("reference", "batches", "ours")),
        *(f"{ratio:.2f}" for ratio in times),
        *(rounded(figures[name]) for name in ("decoding", "encoding")),
        f"{100 * share:.0f} %",
    ]


class Ways:
    """What takes turns; each call of ours takes a folder of files that the library has not seen."""

    def __init__(
        self, library: Library, model: Path, precision: str, case: Case, folders: Sequence[Path]
    ) -> None:
        from transformers import ViTImageProcessorPil, ViTMAEModel

        self._library, self._case = library, case
        self._folders = itertools.cycle(folders)
        self._files = sorted(folders[0].iterdir())
        self._hf = ViTMAEModel.from_pretrained(model, mask_ratio=0.0, dtype=torch.float32)
        self._hf.train(False)
        self._processor = ViTImageProcessorPil.from_pretrained(model)
        self._embedder = open_embedder(PluginHost().get("vitmae"), {"model": str(model)}, "cpu", precision)
        self._pixels = list(self._fetch(self._files, None))

    def all(self) -> dict[str, Callable[[], object]]:
        few = self._files[: self._case.reference]
        return {
            "reference": lambda: self._reference([[path] for path in few]),
            "batches": lambda: self._reference([self._files[: 2 * self._case.reference]]),
            "ours": self._index,
            "decoding": self._decode,
            "encoding": self._encode,
        }

    def _reference(self, batches: Sequence[Sequence[Path]]) -> None:
        index = faiss.IndexFlatIP(self._hf.config.hidden_size)
        for batch in batches:
            images = [Image.open(path).convert("RGB") for path in batch]
            inputs = self._processor(images=images, return_tensors="pt")
            with torch.no_grad():
                tokens = self._hf(**inputs).last_hidden_state
            vectors = functional.normalize(tokens[:, 1:].mean(dim=1), dim=1)
            index.add(vectors.numpy())

    def _index(self) -> None:
        report = self._library.index(next(self._folders))
        assert (report.added, report.failed) == (self._case.ours, 0), report

    def _decode(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            for _ in self._fetch(self._files, ThumbnailStore(name)):
                pass

    def _encode(self) -> None:
        size = batch_size_for(self._embedder)
        for start in range(0, len(self._pixels), size):
            self._embedder.embed(np.stack(self._pixels[start : start + size]))

    def _fetch(self, files: Sequence[Path], thumbnails: ThumbnailStore | None) -> Iterator[NDArray[np.uint8]]:
        embedder = self._embedder
        shrink_to = decode_target("scaled", embedder.input_size)
        reading = Reading(PhotoDecoder(embedder.prepare, thumbnails, shrink_to), embedder, cores(), 1)
        jobs = [Job(stamp_file(str(path))) for path in files]
        for one in reading.fetch(jobs, lambda digests: {}):
            assert one.pixels is not None, one.error
            yield one.pixels


def _folders(home: Path, photos: Sequence[bytes], count: int, folders: int) -> list[Path]:
    return [_folder(home / str(number), photos, count, str(number)) for number in range(folders)]


def _folder(folder: Path, photos: Sequence[bytes], count: int, name: str) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        data = photos[number % len(photos)] + f"{name} {number}".encode()
        (folder / f"{number:05d}.jpg").write_bytes(data)
    return folder


def _random_base(folder: Path) -> Path:
    """A ViT-B/16 as the authors' own, but for its weights."""
    from transformers import ViTImageProcessorPil, ViTMAEConfig, ViTMAEModel

    ViTMAEModel(ViTMAEConfig()).save_pretrained(folder)
    ViTImageProcessorPil(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]).save_pretrained(
        folder
    )
    return folder


def _memory(photos: Sequence[bytes], home: Path) -> str:
    """Peak memory of runs over few and many files of the last case's, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for count in _MEMORY:
        folder = _folder(home / f"memory-{count}", photos, count, "memory")
        with context.Pool(1) as pool:
            peaks.append(pool.apply(_peak, (folder, home / f"library-{count}")))
    said = (f"{peak:.0f} MB for {count} files" for count, peak in zip(_MEMORY, peaks, strict=True))
    return (
        f"Peak memory of `index` with the shipped model: {', '.join(said)} of {len(photos[0]) / 1e6:.1f} MB."
    )


def _peak(folder: Path, library: Path) -> float:
    """Megabytes. Linux's own figure where it is told: the other one counts what the process was made from."""
    with Library.open(library) as opened:
        opened.index(folder)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
