"""Damage any file of a library, as a bad disk, a bad copy or a person does."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.fork_server import Done
from tests.faults.scenarios import Home
from tests.faults.truth import Truth, wrong_hits
from vitmae_search.photos import ThumbnailStore

K = 10
PAGE = 4096


def kind(file: Path) -> str:
    """The kind of a library's file, so that each kind is damaged equally often."""
    return {"thumbnails": "thumbnail", "projections": "projection"}.get(
        file.parent.name if len(file.parent.name) > 2 else file.parent.parent.name,
        file.suffix.removeprefix(".") or file.name,
    )


def flip(data: bytearray, draw: random.Random) -> None:
    """Turn one to eight bits around."""
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def truncate(data: bytearray, draw: random.Random) -> None:
    """Cut the end off."""
    del data[draw.randrange(len(data)) :]


def zero(data: bytearray, draw: random.Random) -> None:
    """Lose a page."""
    start = draw.randrange(0, len(data), PAGE)
    data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))


def garbage(data: bytearray, draw: random.Random) -> None:
    """Overwrite a part with noise."""
    start = draw.randrange(len(data))
    size = min(len(data) - start, draw.randint(1, 500))
    data[start : start + size] = draw.randbytes(size)


EDITS = (flip, truncate, zero, garbage)


def damage(library: Path, draw: random.Random) -> tuple[str, str]:
    """Damage one file, and return its kind and what was done.

    Args:
        library: The library.
        draw: Decides on the file and the damage.
    """
    by_kind: dict[str, list[Path]] = {}
    for file in sorted(library.rglob("*")):
        if file.is_file() and file.stat().st_size:
            by_kind.setdefault(kind(file), []).append(file)
    which = draw.choice(sorted(by_kind))
    file = draw.choice(by_kind[which])
    action = draw.choice([*EDITS, *EDITS, "delete", "swap"])
    if action == "delete":
        file.unlink()
        return which, "deleted"
    if action == "swap":
        others = [other for files in by_kind.values() for other in files if other != file]
        other, between = draw.choice(others), library / "between"
        shutil.move(file, between)
        shutil.move(other, file)
        shutil.move(between, other)
        return f"{which} and {kind(other)}", "swapped"
    data = bytearray(file.read_bytes())
    action(data, draw)
    file.write_bytes(data)
    return which, str(action.__name__)


@dataclass
class Tally:
    """What the damages came to.

    Attributes:
        damages: How many, by kind of file.
        said: Those that a command reported; the others did no harm.
        faults: What was wrong and unsaid, or no sentence.
    """

    damages: Counter[str] = field(default_factory=Counter)
    said: int = 0
    faults: list[str] = field(default_factory=list)


class Patient:
    """A library that is damaged again and again, and what is in it."""

    def __init__(self, home: Home) -> None:
        """Read the library as it is before any damage.

        Args:
            home: Has the library, which stays as it is.
        """
        self._home = home
        self._truth = Truth.of(home.library)
        self._copy = home.folder / "damaged"
        self._queries = [*filter(self._truth.is_as_on_disk, self._truth.searchable())][:2]
        self._digests = sorted({digest for digest, _ in self._truth.photos.values()})
        self._thumbnails = self._shown(home.library)

    def harm(self, seed: int, tally: Tally) -> None:
        """Damage a copy, and record what commands say of it.

        Args:
            seed: Of the damage.
            tally: Where it is counted.
        """
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._home.library, self._copy)
        which, what = damage(self._copy, random.Random(seed))
        tally.damages[which.split(" and ")[0]] += 1
        name = f"damage {seed}, {which} {what}"
        wrong = self._wrong()
        checked = self._run("check")
        tally.faults += [f"{name}: check: {fault}" for fault in _no_sentence(checked)]
        tally.said += checked.code == 1
        if checked.code == 0:
            tally.faults += [f"{name}: {fault}" for fault in wrong]
            wrong_later = self._wrong()
            tally.faults += [f"{name}: after the check: {fault}" for fault in wrong_later if not wrong]
            return
        repaired = self._run("check", "--repair")
        tally.faults += [f"{name}: --repair: {fault}" for fault in _no_sentence(repaired)]
        if repaired.code == 0:
            tally.faults += [f"{name}: after --repair: {fault}" for fault in self._wrong(repaired=True)]

    def _wrong(self, *, repaired: bool = False) -> list[str]:
        """What `status` and `search` find that they should not; a sentence is fine.

        Args:
            repaired: Whether photos may be gone that cannot be trusted, until the next `index`.
        """
        found = list(_no_sentence(self._run("status")))
        for query in self._queries:
            done = self._run("search", query, "--json", "-k", str(K))
            found += _no_sentence(done)
            if done.code == 0:
                hits = done.json["hits"]
                truth = self._truth_of_what_is_left() if repaired else self._truth
                if query in truth.photos and (truth.spaces[0], truth.photos[query][0]) in truth.vectors:
                    found += wrong_hits(truth, query, hits, K)
        shown = self._shown(self._copy)
        return found + [
            f"another thumbnail of {digest}"
            for digest, data in shown.items()
            if data not in (None, self._thumbnails[digest])
        ]

    def _truth_of_what_is_left(self) -> Truth:
        """Which photos and vectors the repaired library has, with the vectors that they had."""
        left = Truth.of(self._copy)
        vectors = {key: self._truth.vectors.get(key, vector) for key, vector in left.vectors.items()}
        return replace(left, vectors=vectors)

    def _shown(self, library: Path) -> dict[str, bytes | None]:
        store = ThumbnailStore(library / "thumbnails")
        return {digest: store.get(digest) for digest in self._digests}

    def _run(self, *arguments: str | os.PathLike[str]) -> Done:
        return self._home.run(*arguments, library=self._copy)


def _no_sentence(done: Done) -> list[str]:
    if "Traceback" in done.err or done.code not in (0, 1):
        return [f"ends with {done.code}: {done.err[-900:]}"]
    return []
