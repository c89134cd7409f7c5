"""From JPEG files to a searchable library, compared with the code of the reference's documentation.

    python -m benchmarks.end_to_end [--device auto|cpu|cuda] [--model base|large|shipped] [--workers N]
        [--precision auto] [--runtime auto|torch|openvino] [--files N] [--rounds N] [--quick]

--quick measures the bundled model alone, in three rounds: a few minutes, of which one is making photos.
`--runtime openvino` computes in OpenVINO from the start, as all runs on a CPU do after the first long one.
`--files` is how many photos a round of ours indexes.

The reference, on the same device: for each file `Image.open`, HF's image processor, HF's `ViTMAEModel` in
fp32 at mask_ratio 0, the mean of the patch tokens, `faiss.IndexFlatIP.add`; and the same in batches. Ours is
`Library.index` with thumbnails: the catalogue is committed and the index file saved. "decoding alone" reads,
digests, decodes and makes the thumbnails of the same files with as many workers, "encoding alone" embeds the
same pixels.

The share is how near a whole run comes to what these two allow. On a CPU they use the same cores, so the
limit is one after the other; on a GPU they run at the same time, so the limit is the slower of the two.

`base` is a ViT-B/16 and `large` a ViT-L/16 of 224 pixels with random weights, for speed only. The photos are
those of `benchmarks.synthetic_photos`, each file with a few bytes more at its end, so no content comes twice.
On a GPU there are more of them, so that a round takes seconds, and some gigabytes.
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
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from benchmarks.devices import describe_device, require_device, synchronizer
from benchmarks.encoder_cases import MODEL_CONFIGS, SHIPPED
from benchmarks.synthetic_photos import LARGE, SMALL, make_photos
from benchmarks.timing import describe_machine, format_figure, markdown_table, speedups, time_interleaved
from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.indexing.batcher import batch_size_for
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import read_ahead
from vitmae_search.library import Library
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode_target, stamp_file
from vitmae_search.photos.prefetch import default_workers

MODELS = ("base", "large", "shipped")


@dataclass(frozen=True, slots=True)
class EndToEndCase:
    """A model and photos.

    Attributes:
        model: A name of `MODELS`.
        size: (width, height) of the photos in pixels.
        ours: Files that `Library.index` reads in a round.
        reference: Files that the reference reads in a round.
    """

    model: str
    size: tuple[int, int]
    ours: int
    reference: int


CASES = {
    "cpu": (
        EndToEndCase("base", SMALL, 64, 8),
        EndToEndCase("base", LARGE, 64, 4),
        EndToEndCase("shipped", SMALL, 256, 32),
        EndToEndCase("shipped", LARGE, 96, 6),
    ),
    "cuda": tuple(
        case
        for model in MODELS
        for case in (EndToEndCase(model, SMALL, 4096, 128), EndToEndCase(model, LARGE, 768, 16))
    ),
}
_ROUNDS = {"cpu": 5, "cuda": 3}
_QUICK_ROUNDS = 3
_DISTINCT = {SMALL: 64, LARGE: 12}
_MEMORY = {"cpu": (64, 256), "cuda": (512, 2048)}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all cases share."""

    device: torch.device
    precision: str
    rounds: int
    workers: int
    runtime: str = "auto"

    @property
    def kind(self) -> str:
        """The type of the device, "cuda" or "cpu"."""
        return "cuda" if self.device.type == "cuda" else "cpu"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--model", choices=MODELS, help="one of them only")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--runtime", default="auto", help="of ours: auto, torch or openvino")
    parser.add_argument("--files", type=int, metavar="N", help="that ours indexes in a round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="the bundled model alone, in three rounds")
    parser.add_argument("--workers", type=int, default=default_workers(), help="photos read at a time")
    chosen = parser.parse_args()
    silence_warnings()
    device = require_device(chosen.device)
    setting = Settings(device, chosen.precision, 0, chosen.workers, chosen.runtime)
    rounds = chosen.rounds or (_QUICK_ROUNDS if chosen.quick else _ROUNDS[setting.kind])
    model = chosen.model or ("shipped" if chosen.quick else None)
    setting = replace(setting, rounds=rounds)
    cases = [case for case in CASES[setting.kind] if model in (None, case.model)]
    if chosen.files is not None:
        cases = [replace(case, ours=chosen.files) for case in cases]
    machine = describe_machine("pillow", "faiss-cpu")
    print(f"{describe_device(device)}\n- {machine}; {setting.workers} workers\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        report(cases, setting, Path(name))


def silence_warnings() -> None:
    """Switch off progress bars and transformers' list of unused decoder weights."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # read when it is imported, which is later
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


HEADER = (
    *("model", "photos", "reference, images/s", "in a batch", "ours", "× reference", "× batch"),
    *("decoding alone", "encoding alone", "share", "device memory"),
)


def report(cases: Sequence[EndToEndCase], setting: Settings, home: Path) -> None:
    """Measure all cases, and print each row as soon as it is known.

    Args:
        cases: What to measure.
        setting: The same for all of them.
        home: A temporary folder.
    """
    photos = {
        size: [path.read_bytes() for path in make_photos(home / f"{size[0]}", size, _DISTINCT[size])]
        for size in dict.fromkeys(case.size for case in cases)
    }
    print(markdown_table(HEADER, []), flush=True)
    for number, case in enumerate(cases):
        print(
            markdown_table(measure(case, photos[case.size], home / str(number), setting), []).partition("\n")[
                0
            ],
            flush=True,
        )
    print("\n" + _host_memory(photos[cases[-1].size], home, setting))


def measure(case: EndToEndCase, photos: Sequence[bytes], home: Path, setting: Settings) -> list[str]:
    """Measure one case.

    Args:
        case: Model and photos.
        photos: Bytes of different JPEGs.
        home: A folder to make.
        setting: Device, precision, rounds and workers.

    Returns:
        The cells of its row, as in `HEADER`.
    """
    home.mkdir()
    with tempfile.TemporaryDirectory(dir=home) as name:
        # One folder for each round, one for warming up, and one for measuring memory.
        folders = _folders(Path(name) / "photos", photos, case.ours, setting.rounds + 2)
        model = SHIPPED if case.model == "shipped" else random_model(case.model, Path(name) / "model")
        device, precision = str(setting.device), setting.precision
        with (
            Library.open(
                Path(name) / "library",
                model=str(model),
                options={"runtime": setting.runtime},
                device=device,
                precision=precision,
            ) as library,
            closing(Variants(library, model, setting, case, folders)) as variants,
        ):
            library.index(make_folder(Path(name) / "first", photos, max(128, case.ours // 4), "first"))
            seconds = time_interleaved(
                variants.all(), rounds=setting.rounds, synchronise=synchronizer(setting.device)
            )
            variants.close()
            memory = device_memory(setting.device, variants.index)
    return _cells(case, seconds, setting, memory)


def _cells(
    case: EndToEndCase, seconds: dict[str, NDArray[np.float64]], setting: Settings, memory: str
) -> list[str]:
    counts = {"reference": case.reference, "batches": case.reference * 2}
    each = {name: taken / counts.get(name, case.ours) for name, taken in seconds.items()}
    figures = {name: 1 / float(np.median(taken)) for name, taken in each.items()}
    together = np.maximum if setting.kind == "cuda" else np.add
    share = float(np.median(together(each["decoding"], each["encoding"]) / each["ours"]))
    times = (speedups(each, other)["ours"] for other in ("reference", "batches"))
    return [
        case.model,
        f"{case.size[0]} × {case.size[1]}",
        *(format_figure(figures[name]) for name in ("reference", "batches", "ours")),
        *(f"{ratio:.2f}" for ratio in times),
        *(format_figure(figures[name]) for name in ("decoding", "encoding")),
        f"{100 * share:.0f} %",
        memory,
    ]


class Variants:
    """The variants that take turns. Each call of ours indexes a folder that the library does not know yet."""

    def __init__(
        self, library: Library, model: Path, setting: Settings, case: EndToEndCase, folders: Sequence[Path]
    ) -> None:
        from transformers import ViTImageProcessorPil, ViTMAEModel

        self._library, self._case, self._setting = library, case, setting
        self._folders = itertools.cycle(folders)
        self._files = sorted(folders[0].iterdir())
        self._hf: Any = ViTMAEModel.from_pretrained(model, mask_ratio=0.0, dtype=torch.float32)
        self._hf.train(False).to(setting.device)
        self._processor = ViTImageProcessorPil.from_pretrained(model)
        self._embedder = open_embedder(
            PluginHost().get("vitmae"),
            {"model": str(model), "runtime": setting.runtime},
            str(setting.device),
            setting.precision,
        )
        pixels = list(self._fetch(self._files, None))
        size = batch_size_for(self._embedder)
        self._batches = [np.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]

    def all(self) -> dict[str, Callable[[], object]]:
        """The variants by name."""
        few = self._files[: self._case.reference]
        return {
            "reference": lambda: self._reference([[path] for path in few]),
            "batches": lambda: self._reference([self._files[: 2 * self._case.reference]]),
            "ours": self.index,
            "decoding": self._decode,
            "encoding": self._encode,
        }

    def index(self) -> None:
        """Index the next folder."""
        report = self._library.index(next(self._folders), workers=self._setting.workers)
        assert (report.added, report.failed) == (self._case.ours, 0), report

    def close(self) -> None:
        """Release the memory of all but the library."""
        self._hf, self._batches = None, []
        self._embedder.close()

    def _reference(self, batches: Sequence[Sequence[Path]]) -> None:
        index = faiss.IndexFlatIP(self._hf.config.hidden_size)
        for batch in batches:
            images = [Image.open(path).convert("RGB") for path in batch]
            inputs = self._processor(images=images, return_tensors="pt").to(self._setting.device)
            with torch.no_grad():
                tokens = self._hf(**inputs).last_hidden_state
            vectors = functional.normalize(tokens[:, 1:].mean(dim=1), dim=1)
            index.add(vectors.cpu().numpy())

    def _decode(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            for _ in self._fetch(self._files, ThumbnailStore(name)):
                pass

    def _encode(self) -> None:
        for batch in self._batches:
            self._embedder.embed(batch)

    def _fetch(self, files: Sequence[Path], thumbnails: ThumbnailStore | None) -> Iterator[NDArray[np.uint8]]:
        shrink_to = decode_target("scaled", self._embedder.input_size)
        decoder = PhotoDecoder(self._embedder.prepare, thumbnails, shrink_to)
        pending = [PendingFile(stamp_file(str(path))) for path in files]
        fetched_files = read_ahead(
            pending,
            lambda digests: {},
            decoder,
            count=len(pending),
            workers=self._setting.workers,
            batch_size=batch_size_for(self._embedder),
        )
        for one in fetched_files:
            assert one.pixels is not None, one.error
            yield one.pixels


def device_memory(device: torch.device, work: Callable[[], object]) -> str:
    """Peak device memory of this process while `work` runs, used and reserved; a dash on a CPU.

    Args:
        device: Where it runs.
        work: What is measured.
    """
    if device.type != "cuda":
        return "-"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    used, held = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return f"{used / 2**20:.0f} MiB, {held / 2**20:.0f} held"


def _folders(home: Path, photos: Sequence[bytes], count: int, folders: int) -> list[Path]:
    return [make_folder(home / str(number), photos, count, str(number)) for number in range(folders)]


def make_folder(folder: Path, photos: Sequence[bytes], count: int, name: str) -> Path:
    """Write files of photos, each with some bytes appended, so that no two have the same content.

    Args:
        folder: A folder to make.
        photos: Bytes of JPEGs.
        count: Files.
        name: Part of the appended bytes.
    """
    folder.mkdir(parents=True)
    for number in range(count):
        data = photos[number % len(photos)] + f"{name} {number}".encode()
        (folder / f"{number:05d}.jpg").write_bytes(data)
    return folder


def random_model(name: str, folder: Path) -> Path:
    """Write a model of `encoder_cases.MODEL_CONFIGS` with random weights.

    Args:
        name: The configuration's name.
        folder: Where it is written.
    """
    from transformers import ViTImageProcessorPil, ViTMAEConfig, ViTMAEModel

    config = ViTMAEConfig(**MODEL_CONFIGS[name])
    ViTMAEModel(config).save_pretrained(folder)
    side = MODEL_CONFIGS[name].get("image_size", 224)
    size = {"height": side, "width": side}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ViTImageProcessorPil(size=size, image_mean=mean, image_std=std).save_pretrained(folder)
    return folder


def _host_memory(photos: Sequence[bytes], home: Path, setting: Settings) -> str:
    """Peak memory of runs over few and over many files of the last case, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    said = []
    for count in _MEMORY[setting.kind]:
        folder = make_folder(home / f"memory-{count}", photos, count, "memory")
        with context.Pool(1) as pool:
            library = home / f"library-{count}"
            own, other = pool.apply(peak_memory, (folder, library, str(setting.device), setting.workers))
        said.append(f"{own:.0f} MB{f' and {other:.0f} a worker' if other else ''} for {count} files")
    size = f"{len(photos[0]) / 1e6:.1f} MB"
    return f"Peak host memory of `index` with the shipped model: {', '.join(said)} of {size}."


def peak_memory(folder: Path, library: Path, device: str, workers: int) -> tuple[float, float]:
    """Index a folder and measure memory.

    On Linux /proc is read, because `getrusage` also counts the process that this one was forked from.

    Args:
        folder: A folder of photos.
        library: The library's folder.
        device: As `--device` takes it.
        workers: Photos read at a time.

    Returns:
        Peak megabytes of this process, and of the largest that it started.
    """
    with Library.open(library, device=device) as opened:
        opened.index(folder, workers=workers)
    unit = 1e6 if sys.platform == "darwin" else 1e3
    other = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
    except OSError:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return own, other


if __name__ == "__main__":
    main()
