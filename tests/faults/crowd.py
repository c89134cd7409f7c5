"""Many processes at one library at once: `python -m tests.faults.crowd ROLE HOME SECONDS [PATCH...]`.

Each goes on until its time is over, and prints what went wrong, a line each. That another process is writing
is no fault; nor is that a space which was just dropped is not there.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tests.faults.scenarios import Home, write_photo

ROLES = (
    "writer-a",
    "writer-b",
    *(f"browser-{number}" for number in range(5)),
    "repairer",
    "dropper",
    "reader",
)


def start(role: str, home: Home, seconds: float) -> subprocess.Popen[str]:
    """Start a process of the crowd.

    Args:
        role: One of `ROLES`.
        home: The library, the photos, and the patches.
        seconds: How long.
    """
    command = [
        sys.executable,
        "-m",
        "tests.faults.crowd",
        role,
        str(home.folder),
        str(seconds),
        *home.patches,
    ]
    root = Path(__file__).parents[2]
    environment = {**os.environ, **home.environment(), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, sys.path)])
    return subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def command(*arguments: str | os.PathLike[str]) -> Iterator[str]:
    """Run a command in this process, and yield what is wrong with what it says.

    Args:
        *arguments: Of `vitmae-search`.
    """
    from vitmae_search.cli.main import run

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = run([os.fspath(argument) for argument in arguments])
    said = printed.getvalue()
    harmless = ("is being written by", "There is no space", "has no photos yet", "was dropped")
    if "Traceback" in said or "locked" in said or (code == 1 and not any(word in said for word in harmless)):
        yield f"{arguments[0]}: {' '.join(said.split())[-600:]}"


def writer(home: Home, letter: str) -> Callable[[int], Iterator[str]]:
    """Adds, changes and deletes photos of its own folder, and indexes it.

    Args:
        home: The library and the photos.
        letter: The folder's name.
    """
    folder = home.photos / letter

    def once(turn: int) -> Iterator[str]:
        for number in range(3):
            write_photo(folder / f"{(turn * 3 + number) % 20}.jpg", hash((letter, turn, number)) % 2**32)
        (folder / f"{(turn * 7) % 20}.jpg").unlink(missing_ok=True)
        yield from command(
            "index", folder, "--embedder", "plain", "--projection", "none", "--batch-size", "2"
        )

    return once


def browser(home: Home, number: str) -> Callable[[int], Iterator[str]]:
    """Keeps a library open, as the app does, and searches, lists and looks.

    Args:
        home: The library.
        number: Not used.
    """
    from vitmae_search.errors import LibraryEmpty, SpaceError
    from vitmae_search.library import Library

    library = Library.open(home.library, background=True)

    def once(turn: int) -> Iterator[str]:
        try:
            library.status()
            photos = library.photos(limit=30)
            if photos:
                photo = photos[turn % len(photos)]
                library.thumbnail(photo.photo_id)
                if library.photo(photo.photo_id) is not None:
                    hits = library.similar(photo.photo_id, k=5).hits
                    scores = [hit.score for hit in hits]
                    if scores != sorted(scores, reverse=True):
                        yield f"similar: scores out of order: {scores}"
        except (SpaceError, LibraryEmpty):
            pass  # dropped, or not indexed in it yet
        except Exception as error:
            if "has no photo with" not in str(error):  # deleted meanwhile
                yield f"browser: {error!r}"

    return once


def repairer(home: Home, _: str) -> Callable[[int], Iterator[str]]:
    """Checks and repairs.

    Args:
        home: Not used.
    """
    return lambda turn: command("check", "--repair")


def dropper(home: Home, _: str) -> Callable[[int], Iterator[str]]:
    """Makes a second space and drops it.

    Args:
        home: The photos.
    """

    def once(turn: int) -> Iterator[str]:
        from vitmae_search.library import Library

        yield from command("index", home.photos / "a", "--embedder", "color_layout")
        with Library.open(home.library) as library:
            others = [space.space_id for space in library.status().spaces if not space.current]
        for space_id in others:
            yield from command("spaces", "drop", str(space_id))

    return once


def reader(home: Home, _: str) -> Callable[[int], Iterator[str]]:
    """Runs the commands that only read.

    Args:
        home: The photos.
    """

    def once(turn: int) -> Iterator[str]:
        yield from command("status")
        yield from command("check")
        yield from command("search", home.photos / "still.jpg", "--json")

    return once


MEMBERS = {"writer": writer, "browser": browser, "repairer": repairer, "dropper": dropper, "reader": reader}


def main(role: str, folder: str, seconds: str, *patches: str) -> None:
    """Act until the time is over.

    Args:
        role: One of `ROLES`.
        folder: The home.
        seconds: How long.
        *patches: Functions of `broken_variants`.
    """
    from tests.faults import broken_variants
    from tests.faults.fork_server import ForkServer

    for name in patches:
        getattr(broken_variants, name)()
    home = Home(Path(folder), ForkServer.__new__(ForkServer), patches)
    member, _, name = role.partition("-")
    once, end, turn = MEMBERS[member](home, name), time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        for fault in once(turn):
            print(f"fault: {role}: {fault}", flush=True)
        turn += 1
    print(f"turns: {turn}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
