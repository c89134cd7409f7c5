from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image

from vitmae_search.errors import UnreadablePhoto
from vitmae_search.photos import raw, scan, stamp_file
from vitmae_search.photos.scan import SYSTEM_FOLDERS, path_on_disk
from vitmae_search.records import ScanProblem


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def walk(root: Path, exclude: Sequence[str] = ()) -> tuple[list[str], list[ScanProblem]]:
    """Paths below `root` as the walk yields them, and its problems."""
    problems: list[ScanProblem] = []
    stamps = list(scan(str(root), exclude=exclude, on_problem=problems.append))
    return [os.path.relpath(stamp.path, root) for stamp in stamps], problems


def names(root: Path, exclude: Sequence[str] = ()) -> list[str]:
    """As `walk`, where there must be no problem."""
    found, problems = walk(root, exclude)
    assert problems == []
    return found


def test_a_folder_is_walked_in_a_fixed_order_files_first(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a.JPG", "z/1.png", "c/2.tiff", "c/d/3.HEIC", "notes.txt", "c/film.mp4", "noext")
    assert names(tmp_path) == ["a.JPG", "b.jpg", "c/2.tiff", "c/d/3.HEIC", "z/1.png"]


def walk_others(root: Path, exclude: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Names of the photos below `root`, and of the other files."""
    others: list[str] = []
    found = scan(str(root), exclude=exclude, on_problem=pytest.fail, on_other=others.append)
    return [os.path.relpath(stamp.path, root) for stamp in found], [os.path.relpath(o, root) for o in others]


@pytest.mark.parametrize(
    "name", ["photo", "a.jpg_large", "a.jps", "a.jpg ", "a.b.q", "a.dng", "a.jpg!d", "a.2"]
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_file_without_a_known_suffix_is_a_photo_if_it_begins_as_one(
    tmp_path: Path, cat: Image.Image, encoded: Callable[..., bytes], name: str, image_format: str
) -> None:
    (tmp_path / name).write_bytes(encoded(cat.resize((40, 30)), image_format))
    assert walk_others(tmp_path) == ([name], [])


def test_other_files_are_counted_and_not_taken(
    tmp_path: Path, cat: Image.Image, encoded: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "can_be_decoded", lambda: False)
    tiff = encoded(cat.resize((40, 30)), "TIFF")
    contents = {
        "raw.DNG": tiff,  # its first image is a thumbnail
        "raw.nef": tiff,
        "text": b"BMP files are described here.",
        "words.jpg_large": b"",
        "film.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
        "film without a suffix": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
        "sub/side.xmp": b"<x/>",
    }
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "scan").write_bytes(tiff)
    (tmp_path / ".hidden").write_bytes(tiff)
    found, others = walk_others(tmp_path)
    assert found == ["scan"]
    assert sorted(others) == sorted(contents)
    assert walk_others(tmp_path, exclude=["*.mp4", "sub"])[1] == sorted(
        set(contents) - {"film.mp4", "sub/side.xmp"}
    )


def test_films_and_documents_are_not_even_opened(
    locked: tuple[Path, Callable[[], AbstractContextManager[None]]],
) -> None:
    folder, unprivileged = locked
    put(folder, "a.mp4", "b.pdf", "c.xmp")
    for file in folder.iterdir():
        file.chmod(0)
    with unprivileged():
        assert walk_others(folder) == ([], ["a.mp4", "b.pdf", "c.xmp"])


def test_a_file_that_may_be_a_photo_and_cannot_be_opened_is_a_problem(
    locked: tuple[Path, Callable[[], AbstractContextManager[None]]],
) -> None:
    folder, unprivileged = locked
    put(folder, "a")
    (folder / "a").chmod(0)
    with unprivileged():
        assert walk(folder) == ([], [ScanProblem(str(folder / "a"), "Permission denied")])


def test_stamps_say_what_stat_says(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_600_000_000_123_456_789))
    (stamp,) = scan(str(tmp_path), on_problem=pytest.fail)
    status = (tmp_path / "a.jpg").stat()
    assert (stamp.path, stamp.size) == (str(tmp_path / "a.jpg"), 5)
    assert (stamp.mtime_ns, stamp.device) == (status.st_mtime_ns, status.st_dev)
    assert stamp == stamp_file(stamp.path)


def test_hidden_names_and_system_folders_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, ".hidden.jpg", "._a.jpg", ".thumbs/b.jpg", "Thumbs.db", "kept.jpg")
    put(tmp_path, *(f"{folder}/x.jpg" for folder in SYSTEM_FOLDERS))
    assert names(tmp_path) == ["kept.jpg"]


def test_caches_of_other_programs_are_left_out_and_named(tmp_path: Path) -> None:
    left_out = ("@eaDir", "Thumbs", ".thumbnails", ".picasaoriginals", "a/cache", "My Previews.lrdata")
    left_out += ("Photos.photoslibrary/resources", "Old.photolibrary/Previews")
    kept = ("thumbs up", "resources", "Previews", "cached", "Photos.photoslibrary/originals", "lrdata")
    put(tmp_path, *(f"{folder}/x.jpg" for folder in (*left_out, *kept)))
    put(tmp_path, ".hidden/x.jpg")
    seen: list[str] = []
    found = [stamp.path for stamp in scan(str(tmp_path), on_problem=print, on_left_out=seen.append)]
    assert sorted(found) == sorted(str(tmp_path / folder / "x.jpg") for folder in kept)
    assert sorted(seen) == sorted(str(tmp_path / folder) for folder in left_out)
    assert names(tmp_path / "Thumbs") == ["x.jpg"], "unless it is asked for"


def test_a_hidden_root_is_walked_all_the_same(tmp_path: Path) -> None:
    put(tmp_path / ".photos", "a.jpg")
    assert names(tmp_path / ".photos") == ["a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.png", ["a.jpg", "raw/c.jpg", "raw/deep/d.jpg"]),
        ("raw", ["a.jpg", "b.png"]),
        ("raw/", ["a.jpg", "b.png"]),
        ("/raw/*.jpg", ["a.jpg", "b.png", "raw/deep/d.jpg"]),
        ("raw/**", ["a.jpg", "b.png"]),
        ("**/deep", ["a.jpg", "b.png", "raw/c.jpg"]),
        ("deep/d.jpg", ["a.jpg", "b.png", "raw/c.jpg", "raw/deep/d.jpg"]),
        ("a.jpg/", ["a.jpg", "b.png", "raw/c.jpg", "raw/deep/d.jpg"]),
        ("[a-c].???", ["raw/deep/d.jpg"]),
    ],
)
def test_excluded_patterns(tmp_path: Path, pattern: str, left: list[str]) -> None:
    put(tmp_path, "a.jpg", "b.png", "raw/c.jpg", "raw/deep/d.jpg")
    assert names(tmp_path, [pattern]) == left


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system there refuses bytes that are not UTF-8")
def test_names_of_every_kind(tmp_path: Path) -> None:
    odd = ["with space.jpg", 'it\'s "quoted".jpg', "🦆.jpg", "two\nlines.jpg", "-rf.jpg", "*.jpg", "é.jpg"]
    odd.append(os.fsdecode(b"caf\xe9 \xff.jpg"))
    odd.append(os.fsdecode(b"\xfffolder/in.jpg"))
    put(tmp_path, *odd)
    assert sorted(names(tmp_path)) == sorted(odd)
    for stamp in scan(str(tmp_path), on_problem=pytest.fail):
        assert Path(stamp.path).read_bytes() == os.fsencode(os.path.relpath(stamp.path, tmp_path))


def test_link_cycles_end(tmp_path: Path) -> None:
    put(tmp_path, "a/b/1.jpg")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a/self")
    (tmp_path / "a/ping").symlink_to(tmp_path / "a/pong")
    (tmp_path / "a/pong").symlink_to(tmp_path / "a/ping")
    assert names(tmp_path) == ["a/b/1.jpg"]


def test_a_linked_folder_is_entered_once_and_the_real_path_wins(tmp_path: Path) -> None:
    put(tmp_path / "root", "z/1.jpg", "z/deep/2.jpg")
    put(tmp_path / "elsewhere", "3.jpg", "sub/4.jpg")
    (tmp_path / "root/a").symlink_to(tmp_path / "root/z")
    (tmp_path / "root/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/d").symlink_to(tmp_path / "elsewhere/sub")
    assert names(tmp_path / "root") == ["z/1.jpg", "z/deep/2.jpg", "b/3.jpg", "b/sub/4.jpg"]


def test_links_to_files_are_photos_and_broken_ones_are_not(tmp_path: Path) -> None:
    put(tmp_path / "root", "a.jpg")
    put(tmp_path, "outside.bin")
    (tmp_path / "root/link.jpg").symlink_to(tmp_path / "outside.bin")
    (tmp_path / "root/broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "root/broken folder").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path / "root") == ["a.jpg", "link.jpg"]
    linked = [s for s in scan(str(tmp_path / "root"), on_problem=pytest.fail) if s.path.endswith("link.jpg")]
    assert linked[0].size == len("outside.bin")


def test_fifos_sockets_and_devices_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "folder.jpg/b.jpg")
    os.mkfifo(tmp_path / "fifo.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        (tmp_path / "null.jpg").symlink_to("/dev/null")
        assert names(tmp_path) == ["a.jpg", "folder.jpg/b.jpg"]


def test_what_is_not_permitted_is_reported_and_the_walk_goes_on(
    locked: tuple[Path, Callable[[], AbstractContextManager[None]]],
) -> None:
    folder, permissions_hold = locked
    put(folder, "a.jpg", "listed/d.jpg", "shut/b.jpg", "z/c.jpg")
    (folder / "a.jpg").chmod(0)  # its stamp may be seen all the same
    (folder / "listed").chmod(0o444)
    (folder / "shut").chmod(0)
    with permissions_hold():
        found, problems = walk(folder)
    assert found == ["a.jpg", "z/c.jpg"]
    assert problems == [
        ScanProblem(str(folder / "listed/d.jpg"), "Permission denied"),
        ScanProblem(str(folder / "shut"), "Permission denied"),
    ]


def test_a_folder_that_vanishes_during_the_walk_is_reported(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "gone/b.jpg", "z/c.jpg")
    problems: list[ScanProblem] = []
    found = []
    for stamp in scan(str(tmp_path), on_problem=problems.append):
        found.append(os.path.relpath(stamp.path, tmp_path))
        if len(found) == 1:
            (tmp_path / "gone").rename(tmp_path / "elsewhere")
    assert found == ["a.jpg", "z/c.jpg"]
    assert [problem.path for problem in problems] == [str(tmp_path / "gone")]


def test_roots_that_are_no_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.dat")
    os.mkfifo(tmp_path / "fifo")
    assert names(tmp_path / "a.dat") == ["."]
    assert walk(tmp_path / "nowhere") == (
        [],
        [ScanProblem(str(tmp_path / "nowhere"), "No such file or directory")],
    )
    assert [p.reason for p in walk(tmp_path / "fifo")[1]] == ["neither a folder nor a file"]
    assert [p.reason for p in walk(tmp_path / "null\0byte")[1]] == ["embedded null byte"]


def test_a_relative_root_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "sub/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert [s.path for s in scan("sub/../sub/", on_problem=pytest.fail)] == [str(tmp_path / "sub/a.jpg")]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """`chain(name, depth)` makes folders name/name/... with a photo at the bottom; `rm` removes any depth."""
    made: list[str] = []

    def make(name: str, depth: int) -> None:
        made.append(name)
        here = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)

    yield make
    subprocess.run(["rm", "-rf", *(str(tmp_path / name) for name in made)], check=True)


def test_folders_may_be_deeper_than_python_recurses(
    tmp_path: Path, chain: Callable[[str, int], None]
) -> None:
    chain("d", 200)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = names(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == ["d/" * 200 + "deep.jpg"]


def test_a_path_beyond_the_system_limit_is_reported(
    tmp_path: Path, chain: Callable[[str, int], None]
) -> None:
    chain("d" * 200, os.pathconf(tmp_path, "PC_PATH_MAX") // 200 + 1)
    put(tmp_path, "a.jpg", "z/c.jpg")
    found, problems = walk(tmp_path)
    assert found == ["a.jpg", "z/c.jpg"]
    assert [problem.reason for problem in problems] == ["File name too long"]


def test_the_stamp_of_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UnreadablePhoto):
            stamp_file(str(path))


def test_a_path_is_spelled_as_on_disk(tmp_path: Path) -> None:
    mixed = tmp_path / "e\u0301" / "\u00e9" / "e\u0301.jpg"
    put(tmp_path, "e\u0301/\u00e9/e\u0301.jpg")
    assert path_on_disk(str(tmp_path / "\u00e9" / "e\u0301" / "\u00e9.jpg")) == str(mixed)
    assert path_on_disk(str(mixed)) == str(mixed)
    assert path_on_disk(str(tmp_path / "\u00e9" / "\u00fc")) == str(tmp_path / "e\u0301" / "\u00fc")
    assert path_on_disk("/\u00e9") == "/\u00e9"
    put(tmp_path, "\u00e9/x.jpg")
    assert path_on_disk(str(tmp_path / "\u00e9")) == str(tmp_path / "\u00e9"), "both are there"
