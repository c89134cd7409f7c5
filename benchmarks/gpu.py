"""Every benchmark of a GPU, one after another, into one Markdown file.

    make bench-gpu        or        python3 -m benchmarks.gpu [--output FILE] [--only NAME...] [--minutes M]

Each runs in a process of its own, with a time limit. One that fails, or takes longer, is said, what it
printed until then is kept, and the next one runs. What comes is added to FILE at once, so that the whole
may be cut into pieces of some minutes: `--minutes` starts nothing that it leaves no time for. `--device
cpu` tries it without a GPU, the encodings on minute models; such figures say nothing.

It runs from a checkout that is not installed. Of what the application needs, `ceilings` takes torch alone;
the encodings also transformers, scikit-image, scikit-learn and platformdirs, and timm for its rows; the
rest needs all.

In pieces of ten minutes, by `--minutes 9.5 --only`: ceilings encoding-base choices-base; end-to-end-base
pretraining-base; pretraining-tiny encoding-shipped; then the others.

In which order to read what comes, and what it decides:

1. `pytest -m gpu` first: nothing below counts where vectors are wrong.
2. `ceilings`: what the card does at most. Much less than its like has elsewhere: look at the clocks beside
   it, and read the rest with that in mind. GELU in the product, each attention and `add_norm` are there
   alone.
3. `encoding-base`: ours against the fastest of HF and timm, as goals are set. Is "photos on the device"
   well above "ours", the host and the bus are the limit (lanes, parts, `embed`'s own work); are both low,
   the kernels are: see the table of where the time goes.
4. `choices-base`: the row that is faster than the first becomes the default, if `choices-large` agrees.
5. The same of `large`; then of `shipped`, whose kernels are small, so that graphs and lanes matter most
   there.
6. `decoding`, `end-to-end-...`: what limits `index`. `pretraining-...`: a step beside others'; the authors'
   rows need a clone of facebookresearch/mae in the folder `mae`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
_MIN_MINUTES = 0.5
"""Minutes that have to be left for another one."""
_ERROR_LINES = 40
"""Of a benchmark's warnings and errors: the last ones."""

Write = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what follows `python` and comes before the device, and how many minutes it may take."""

    words: tuple[str, ...]
    minutes: float


def _encoding(model: str, tables: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.gpu_encoding", "--only", model, "--tables", tables)


BENCHMARKS = {
    "ceilings": Benchmark(("-m", "benchmarks.gpu_peak_rates"), 2),
    "encoding-base": Benchmark(_encoding("base", "ways,rest"), 9),
    "choices-base": Benchmark(_encoding("base", "choices"), 5),
    "encoding-large": Benchmark(_encoding("large", "ways,rest"), 9.5),
    "choices-large": Benchmark(_encoding("large", "choices"), 8),
    "encoding-shipped": Benchmark(_encoding("shipped", "ways,choices,rest"), 9),
    "decoding": Benchmark(("-m", "benchmarks.decoding"), 5),
    "end-to-end-base": Benchmark(("-m", "benchmarks.end_to_end", "--model", "base"), 9),
    "end-to-end-large": Benchmark(("-m", "benchmarks.end_to_end", "--model", "large"), 9),
    "end-to-end-shipped": Benchmark(("-m", "benchmarks.end_to_end", "--model", "shipped"), 9),
    "pretraining-base": Benchmark(("-m", "benchmarks.pretraining", "--only", "base"), 6),
    "pretraining-large": Benchmark(("-m", "benchmarks.pretraining", "--only", "large"), 9),
    "pretraining-tiny": Benchmark(("-m", "benchmarks.pretraining", "--only", "tiny"), 6),
}


def main() -> None:
    """Run what is asked for. Exits with 1 where there is no such device, or where a benchmark failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=120.0, help="for all together")
    parser.add_argument("--output", type=Path, help="a Markdown file, which is added to")
    chosen = parser.parse_args()
    asked = subprocess.run(
        python_command("-m", "benchmarks.devices", chosen.device),
        env=environment(),
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        raise SystemExit(asked.stderr.strip().rpartition("\n")[2])
    with (
        tempfile.TemporaryFile("w")
        if chosen.output is None
        else chosen.output.open("a", encoding="utf-8") as file
    ):
        tell = tee(file)
        tell(f"# On {chosen.device}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
        tell(f"`python3 -m benchmarks.gpu {shlex.join(sys.argv[1:])}`{_git_commit()}\n")
        tell(asked.stdout)
        parts = {name: BENCHMARKS[name] for name in BENCHMARKS if name in chosen.only}
        failed = run_all(parts, chosen.device, chosen.minutes, tell)
    raise SystemExit(1 if failed else 0)


def run_all(parts: dict[str, Benchmark], device: str, minutes: float, tell: Write) -> list[str]:
    """One after another; the names of those that failed, or that there was no time for."""
    end, failed = time.monotonic() + 60 * minutes, []
    for name, part in parts.items():
        left = (end - time.monotonic()) / 60
        tell(f"## {name}\n")
        if left < min(_MIN_MINUTES, part.minutes):
            reason: str | None = "not run: no time was left"
        else:
            reason = run((*part.words, "--device", device), 60 * min(part.minutes, left), tell)
        if reason is not None:
            tell(f"\n**{reason}**\n")
            failed.append(name)
    return failed


def run(words: Sequence[str], seconds: float, tell: Write) -> str | None:
    """Tell what a Python process prints, while it does. None, or why it did not end well."""
    started = time.monotonic()
    tell(f"`python3 {shlex.join(words)}`\n")
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory() as temporary:
        with subprocess.Popen(
            python_command(*words),
            cwd=ROOT,
            env=environment() | {"TMPDIR": temporary},  # where one that is stopped leaves gigabytes
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,  # so that what it starts itself, such as compilers, ends with it
        ) as process:
            stopped = threading.Event()
            limit = threading.Timer(seconds, _stop, (process, stopped))
            limit.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    tell(line.removesuffix("\n"))
            except BaseException:  # an interruption reaches this process alone
                _stop(process, stopped)
                raise
            finally:
                limit.cancel()
        taken = time.monotonic() - started
        errors.seek(0)
        said = errors.read()
    if said:
        last = "\n".join(said.splitlines()[-_ERROR_LINES:])
        tell(f"\n```\n{last}\n```")
    if stopped.is_set():
        return f"stopped after {seconds:.0f} seconds"
    if process.returncode:
        return f"failed after {taken:.0f} seconds, with exit code {process.returncode}"
    tell(f"\n({taken:.0f} seconds)\n")
    return None


def tee(file: IO[str]) -> Write:
    """What prints, and writes to the file at once."""

    def tell(line: str) -> None:
        print(line, flush=True)
        print(line, file=file, flush=True)

    return tell


def python_command(*words: str) -> list[str]:
    return [sys.executable, *words]


def environment() -> dict[str, str]:
    """This process's, with the checkout first among the places that are imported from.

    What torch has compiled is kept for the next benchmark.
    """
    compiled = Path(tempfile.gettempdir()) / "torchinductor_benchmarks"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(compiled),
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def _stop(process: subprocess.Popen[str], stopped: threading.Event) -> None:
    """With all that it started, which may be there without it and hold what it would print to."""
    if process.poll() is None:
        stopped.set()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _git_commit() -> str:
    """Of the checkout, where it is one of git's."""
    try:
        words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        found = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", at {found.stdout.strip()}"


if __name__ == "__main__":
    main()
