"""Let system calls that write to a library fail, as a full, broken or read-only disk does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults import strace
from tests.faults.fork_server import Done
from tests.faults.kills import Target

FAILING = {
    "write": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "ftruncate": ("EIO", "ENOSPC"),
    "rename": ("EACCES", "EROFS", "ENOSPC"),
    "unlink": ("EACCES", "EROFS"),
    "mkdir": ("EACCES", "EROFS", "ENOSPC"),
    "openat": ("EACCES", "EROFS", "ENOSPC"),
}
"""Which errors each call can give."""

TRACED = "trace=" + ",".join(FAILING)


@dataclass(frozen=True)
class DiskError:
    """A call that fails.

    Attributes:
        call: Its name.
        number: Which of these calls, from 1.
        error: The error's name.
        lasting: Whether all that follow fail, too.
    """

    call: str
    number: int
    error: str
    lasting: bool

    def __str__(self) -> str:
        return (
            f"{self.error} at {self.call} number {self.number}{' and all after it' if self.lasting else ''}"
        )


@dataclass
class Tally:
    """What the errors came to.

    Attributes:
        errors: How many of each.
        reported: How many ended the command with a sentence; the others did no harm.
        faults: What was wrong.
    """

    errors: Counter[str] = field(default_factory=Counter)
    reported: int = 0
    faults: list[str] = field(default_factory=list)


def errors_of(target: Target, seed: int) -> Iterator[DiskError]:
    """Errors at calls that write to the library, in a drawn order, each kind of call and error in its turn.

    Args:
        target: Its log has the calls.
        seed: Of the order.
    """
    draw = random.Random(f"{seed} {target.scenario.name}")
    points: dict[tuple[str, str], list[int]] = {}
    for call in strace.parse(target.log):
        writes = call.name != "openat" or "O_CREAT" in call.arguments
        if call.name in FAILING and str(target.trial) in call.arguments and writes:
            for error in FAILING[call.name]:
                points.setdefault((call.name, error), []).append(call.number)
    for numbers in points.values():
        draw.shuffle(numbers)
    while points:
        kinds = list(points.items())
        draw.shuffle(kinds)
        for (call_name, error), numbers in kinds:
            number = numbers.pop()
            # Later writes and openings are not all to the library: what the command prints is one.
            lasting = call_name not in ("write", "openat") and draw.random() < 0.5
            yield DiskError(call_name, number, error, lasting)
            if not numbers:
                del points[call_name, error]


def inject(target: Target, error: DiskError, tally: Tally) -> None:
    """Run the command with an error once, and record what was wrong.

    Args:
        target: The command.
        error: What fails.
        tally: Where it is counted.
    """
    target.restore()
    target.server.start(target.command, target.environment(), patches=target.home.patches, traced=True)
    when = f"{error.number}{'+' if error.lasting else ''}"
    injection = f"inject={error.call}:error={error.error}:when={when}"
    log = target.trial.with_suffix(".log")
    with strace.attached(
        target.server.pid, ["-e", f"trace={error.call}", "-e", injection], log, programs=True
    ):
        done = target.server.wait()
    failed = [line for line in log.read_text("utf-8", "replace").splitlines() if "(INJECTED)" in line]
    if not failed or not all(str(target.trial) in line for line in failed):
        return  # another thread came to that number first, with a file that is not the library's
    tally.errors[f"{error.call} {error.error}"] += 1
    tally.reported += done.code == 1
    found = [*_bad_sentence(target, done), *target.looks(), *target.goes_on()]
    name = f"{target.scenario.name} ({'DELETE' if target.home.patches else 'WAL'}), {error}"
    tally.faults += [f"{name}: {fault}" for fault in found]


def _bad_sentence(target: Target, done: Done) -> Iterator[str]:
    """What is wrong with what the command says of the error: one sentence with the name of a file."""
    said = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if "Traceback" in done.err or done.code not in (0, 1):
        yield f"it ends with {done.code}: {done.err[-900:]}"
    elif done.code == 1 and (len(said) != 1 or str(target.home.folder) not in said[0]):
        yield f"it does not say what cannot be written: {done.err[-900:]}"


def inject_all(targets: Sequence[Target], count: int, seed: int = 0) -> Tally:
    """Spread `count` errors over all targets.

    Args:
        targets: The commands.
        count: How many errors.
        seed: Of what is drawn.
    """
    tally = Tally()
    rounds = [errors_of(target, seed) for target in targets]
    while sum(tally.errors.values()) < count:
        for target, errors in zip(targets, rounds, strict=True):
            error = next(errors, None)
            if error is not None and sum(tally.errors.values()) < count:
                inject(target, error, tally)
    return tally
