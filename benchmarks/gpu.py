"""Every benchmark of a GPU, one after another, into one Markdown file.

    make bench-gpu        or        python3 -m benchmarks.gpu [--output FILE] [--only NAME...] [--minutes M]

Each runs in a process of its own, with a time limit. If one fails or takes too long, that is reported, its
output is kept, and the next one runs. Output is appended to FILE at once, so the whole can be done in pieces
of some minutes: with `--minutes` nothing is started that there is no time for. `--device cpu` tries it out
without a GPU, the encodings on very small models; such figures mean nothing.

It runs from a checkout that is not installed. `ceilings` needs torch alone; the encodings also transformers,
scikit-image, scikit-learn and platformdirs, and timm for its rows; the others need all dependencies.

In pieces of ten minutes, by `--minutes 9.5 --only`: ceilings encoding-base choices-base; end-to-end-base
pretraining-base; pretraining-tiny encoding-shipped; then the others.

In which order to read the results, and what they decide:

1. `pytest -m gpu` first: nothing below counts if vectors are wrong.
2. `ceilings`: the peak rates of the card. If they are much lower than those of the same card elsewhere, look
   at the clocks beside them. GELU in the product, each attention and `add_norm` are measured alone there.
3. `encoding-base`: ours against the fastest of HF and timm. If "photos on the device" is much faster than
   "ours", the host and the bus are the limit; if both are slow, the kernels are: see the table of where the
   time goes.
4. `choices-base`: a row that is faster than the first becomes the default, if `choices-large` agrees.
5. The same for `large`; then for `shipped`, whose kernels are small, so that graphs and lanes matter most.
6. `decoding`, `end-to-end-...`: what limits `index`. `pretraining-...`: a step compared with others'; the
   authors' rows need a clone of facebookresearch/mae in the folder `mae`.
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
"""Minutes that have to be left for starting another benchmark."""
_ERROR_LINES = 40
"""How many of the last lines of a benchmark's stderr are kept."""

Write = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        words: The arguments of `python`; `--device` is appended.
        minutes: Its time limit.
    """

    words: tuple[str, ...]
    minutes: float


def _encoding(model: str, tables: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.gpu_encoding", "--only", model, "--tables", tables)


BENCHMARKS = {
    "ceilings": Benchmark(("-m", "benchmarks.gpu_peak_rates"), 2),
    "encoding-base": Benchmark(_encoding("base", "comparison,profile"), 9),
    "choices-base": Benchmark(_encoding("base", "choices"), 5),
    "encoding-large": Benchmark(_encoding("large", "comparison,profile"), 9.5),
    "choices-large": Benchmark(_encoding("large", "choices"), 8),
    "encoding-shipped": Benchmark(_encoding("shipped", "comparison,choices,profile"), 9),
    "decoding": Benchmark(("-m", "benchmarks.decoding"), 5),
    "end-to-end-base": Benchmark(("-m", "benchmarks.end_to_end", "--model", "base"), 9),
    "end-to-end-large": Benchmark(("-m", "benchmarks.end_to_end", "--model", "large"), 9),
    "end-to-end-shipped": Benchmark(("-m", "benchmarks.end_to_end", "--model", "shipped"), 9),
    "pretraining-base": Benchmark(("-m", "benchmarks.pretraining", "--only", "base"), 6),
    "pretraining-large": Benchmark(("-m", "benchmarks.pretraining", "--only", "large"), 9),
    "pretraining-tiny": Benchmark(("-m", "benchmarks.pretraining", "--only", "tiny"), 6),
}


def main() -> None:
    """Run the chosen benchmarks. Exits with 1 if there is no such device, or a benchmark failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=120.0, help="for all together")
    parser.add_argument("--output", type=Path, help="a Markdown file, which is added to")
    chosen = parser.parse_args()
    described = subprocess.run(
        python_command("-m", "benchmarks.devices", chosen.device),
        env=environment(),
        capture_output=True,
        text=True,
    )
    if described.returncode:
        raise SystemExit(described.stderr.strip().rpartition("\n")[2])
    with (
        tempfile.TemporaryFile("w")
        if chosen.output is None
        else chosen.output.open("a", encoding="utf-8") as file
    ):
        write = tee(file)
        write(f"# On {chosen.device}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
        write(f"`python3 -m benchmarks.gpu {shlex.join(sys.argv[1:])}`{_git_commit()}\n")
        write(described.stdout)
        parts = {name: BENCHMARKS[name] for name in BENCHMARKS if name in chosen.only}
        failed = run_all(parts, chosen.device, chosen.minutes, write)
    raise SystemExit(1 if failed else 0)


def run_all(parts: dict[str, Benchmark], device: str, minutes: float, write: Write) -> list[str]:
    """Run benchmarks one after another.

    Args:
        parts: The parts by name.
        device: As `--device` takes it.
        minutes: Time for all together.
        write: Receives each line.

    Returns:
        The names of those that failed, or for which there was no time.
    """
    end, failed = time.monotonic() + 60 * minutes, []
    for name, part in parts.items():
        left = (end - time.monotonic()) / 60
        write(f"## {name}\n")
        if left < min(_MIN_MINUTES, part.minutes):
            reason: str | None = "not run: no time was left"
        else:
            reason = run((*part.words, "--device", device), 60 * min(part.minutes, left), write)
        if reason is not None:
            write(f"\n**{reason}**\n")
            failed.append(name)
    return failed


def run(words: Sequence[str], seconds: float, write: Write) -> str | None:
    """Run a Python process and pass on what it prints.

    Args:
        words: Its arguments.
        seconds: Its time limit.
        write: Receives each line at once.

    Returns:
        None, or why it failed.
    """
    started = time.monotonic()
    write(f"`python3 {shlex.join(words)}`\n")
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory() as temporary:
        with subprocess.Popen(
            python_command(*words),
            cwd=ROOT,
            env=environment() | {"TMPDIR": temporary},  # a stopped process may leave gigabytes there
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,  # so that its own children, such as compilers, end with it
        ) as process:
            stopped = threading.Event()
            limit = threading.Timer(seconds, _stop, (process, stopped))
            limit.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    write(line.removesuffix("\n"))
            except BaseException:  # an interruption reaches only this process
                _stop(process, stopped)
                raise
            finally:
                limit.cancel()
        taken = time.monotonic() - started
        errors.seek(0)
        stderr_text = errors.read()
    if stderr_text:
        last = "\n".join(stderr_text.splitlines()[-_ERROR_LINES:])
        write(f"\n```\n{last}\n```")
    if stopped.is_set():
        return f"stopped after {seconds:.0f} seconds"
    if process.returncode:
        return f"failed after {taken:.0f} seconds, with exit code {process.returncode}"
    write(f"\n({taken:.0f} seconds)\n")
    return None


def tee(file: IO[str]) -> Write:
    """A function that prints a line and writes it to the file at once."""

    def write(line: str) -> None:
        print(line, flush=True)
        print(line, file=file, flush=True)

    return write


def python_command(*words: str) -> list[str]:
    """The command that runs this Python."""
    return [sys.executable, *words]


def environment() -> dict[str, str]:
    """This process's environment, with the checkout first on the import path.

    torch's compiled kernels are kept for the next benchmark.
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
    """Kill the process and its children, which could outlive it and keep its stdout open."""
    if process.poll() is None:
        stopped.set()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _git_commit() -> str:
    """The commit of the checkout, if it is a git repository."""
    try:
        words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        found = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", at {found.stdout.strip()}"


if __name__ == "__main__":
    main()
