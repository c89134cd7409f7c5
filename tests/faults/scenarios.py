"""What is done to a library while it is killed: one command each, and the state before it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.faults.fork_server import Done, ForkServer

PHOTOS = 24
PLUGINS = Path(__file__).with_name("plain_plugin.py")
DUMPS = Path(__file__).parents[1] / "catalog"
OLD_VERSIONS = sorted(int(dump.stem.removeprefix("version_")) for dump in DUMPS.glob("version_*.sql"))


def write_photo(path: Path, seed: int) -> None:
    """Write a small JPEG that depends on the seed alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((48, 36), Image.Resampling.BICUBIC).save(path, "JPEG", quality=92)


@dataclass
class Home:
    """A folder with photos and a library, and the commands that run in it.

    Attributes:
        folder: Has `photos`, `library`, `cache` and `plugins`.
        server: Runs the commands.
        patches: Those of each command.
    """

    folder: Path
    server: ForkServer
    patches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        (self.folder / "plugins").mkdir(parents=True, exist_ok=True)
        shutil.copy(PLUGINS, self.folder / "plugins" / "plain.py")

    @property
    def photos(self) -> Path:
        """The photos' folder."""
        return self.folder / "photos"

    @property
    def library(self) -> Path:
        """The library's folder."""
        return self.folder / "library"

    def environment(self, library: Path | None = None) -> dict[str, str]:
        """Variables of a command.

        Args:
            library: Another folder than `library`, such as a copy.
        """
        return {
            "VITMAE_SEARCH_LIBRARY": os.fspath(library or self.library),
            "VITMAE_SEARCH_PLUGINS": os.fspath(self.folder / "plugins"),
            "VITMAE_SEARCH_CACHE": os.fspath((library or self.library).with_suffix(".cache")),
            "VITMAE_SEARCH_DATA": os.fspath(self.folder / "data"),
        }

    def run(self, *arguments: str | os.PathLike[str], library: Path | None = None) -> Done:
        """Run a command to its end.

        Args:
            *arguments: Of `vitmae-search`.
            library: As for `environment`.
        """
        return self.server.run(arguments, self.environment(library), patches=self.patches)

    def must(self, *arguments: str | os.PathLike[str]) -> Done:
        """Run a command that has to succeed."""
        done = self.run(*arguments)
        assert done.code == 0, f"{arguments}: {done.code}\n{done.out}\n{done.err}"
        return done


Arguments = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Scenario:
    """One command that is interrupted.

    Attributes:
        name: For the report.
        prepare: Makes photos and library as they are before.
        command: The arguments, from the home.
        every: It is killed once in so many rounds; more than 1 for one that takes long.
    """

    name: str
    prepare: Callable[[Home], None]
    command: Callable[[Home], Arguments]
    every: int = 1


def index_command(home: Home) -> Arguments:
    """Index the photos with the plugin "plain"."""
    return "index", home.photos, "--embedder", "plain", "--batch-size", "4", "--projection", "none"


def _photos_only(home: Home) -> None:
    for seed in range(PHOTOS):
        write_photo(home.photos / f"{seed:02d}.jpg", seed)
    shutil.copy(home.photos / "03.jpg", home.photos / "copy.jpg")
    (home.photos / "broken.jpg").write_bytes((home.photos / "04.jpg").read_bytes()[:200])


def _indexed(home: Home) -> None:
    _photos_only(home)
    home.must(*index_command(home))


def _marked(home: Home) -> None:
    """Favourites, ratings and an album, of photos that `_changed` edits, renames and deletes, too."""
    _indexed(home)
    photos = [home.photos / f"{seed:02d}.jpg" for seed in (0, 5, 8, 10, 11)]
    home.must("mark", *photos, "--favourite", "--rating", "4")
    home.must("albums", "add", "some", *photos[:3])


def _changed(home: Home) -> None:
    """Added, edited, renamed, copied and deleted photos, and one that swapped its name with another."""
    _marked(home)
    photos = home.photos
    for seed in range(100, 108):
        write_photo(photos / "new" / f"{seed}.jpg", seed)
    for seed in (0, 1, 2):
        write_photo(photos / f"{seed:02d}.jpg", 200 + seed)
    for seed in (5, 6, 7):
        (photos / f"{seed:02d}.jpg").rename(photos / f"moved-{seed}.jpg")
    (photos / "08.jpg").rename(photos / "swap.jpg")
    (photos / "09.jpg").rename(photos / "08.jpg")
    (photos / "swap.jpg").rename(photos / "09.jpg")
    shutil.copy(photos / "10.jpg", photos / "copied.jpg")
    for seed in (11, 12, 13):
        (photos / f"{seed}.jpg").unlink()
    write_photo(photos / "broken.jpg", 300)


def _pruned(home: Home) -> None:
    _indexed(home)
    for seed in range(8):
        (home.photos / f"{seed:02d}.jpg").unlink()
    home.must(*index_command(home))


def projection_of(home: Home) -> Path:
    """Write a projection of the vectors that "plain" gives, and return its path."""
    from vitmae_search.embedding import Projection

    path = home.folder / "projection.safetensors"
    random = np.random.default_rng(0)
    weights = (random.normal(size=(12, 195)).astype(np.float32),)
    Projection(weights, (np.zeros(12, np.float32),), "whitening").save(path)
    return path


def _to_adapt(home: Home) -> None:
    for seed in range(60):
        write_photo(home.photos / f"{seed:02d}.jpg", seed)
    home.must(*index_command(home))


def _old_version(version: int) -> Callable[[Home], None]:
    def prepare(home: Home) -> None:
        home.library.mkdir(parents=True)
        home.photos.mkdir()
        with closing(sqlite3.connect(home.library / "catalogue.sqlite3")) as catalogue:
            catalogue.executescript((DUMPS / f"version_{version}.sql").read_text("utf-8"))
            if "rollback_journal" not in home.patches:
                catalogue.execute("PRAGMA journal_mode = WAL")

    return prepare


def _add_to_albums(home: Home) -> Arguments:
    return "albums", "add", "more", *(home.photos / f"{seed:02d}.jpg" for seed in range(PHOTOS))


def _adapt(home: Home) -> Arguments:
    sizes = ("--photos", "48", "--held-out", "12", "--views", "6", "--dimension", "48")
    return "adapt", home.photos, *sizes, "--method", "discriminant"


SCENARIOS = (
    Scenario("first index", _photos_only, index_command),
    Scenario("changes", _changed, index_command),
    *(
        Scenario(f"migration from {version}", _old_version(version), lambda home: ("status",))
        for version in OLD_VERSIONS
    ),
    Scenario(
        "derive",
        _indexed,
        lambda home: (*index_command(home)[:-1], projection_of(home)),
    ),
    Scenario("classify", _indexed, lambda home: ("classify", "--model", "colours", "--plugin", "plain")),
    Scenario("adapt", _to_adapt, _adapt, every=2),
    Scenario("albums", _marked, _add_to_albums),
    Scenario("prune", _pruned, lambda home: ("prune",)),
)
