"""A search in a space that covers only part of the library says so, with the command that brings the rest."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from vitmae_search.cli.main import run
from vitmae_search.library import Library
from vitmae_search.records import SearchFilter


def test_a_space_that_covers_a_part(
    library: Library, photos: Path, tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    query = photos / "even" / "0.jpg"
    assert library.search(query).coverage is None
    other = tmp_path / "other folder"
    for seed in (20, 21):
        write_photo(other / f"{seed}.jpg", seed)
    (other / "bad.jpg").write_bytes(b"bad")
    with Library.open(library.folder, embedder="color_layout", decode="exact") as exact:
        exact.index(other)
    found = library.search(query).coverage
    assert found is not None
    assert (found.searched, found.photos) == (12, 14)
    command = f"vitmae-search index '{other}' --library {library.folder}"
    assert found.command == command
    assert found.text == f"12 of 14 photos are searched; to bring the rest: {command}"
    in_exact = library.search(query, space=2).coverage
    assert in_exact is not None
    assert (in_exact.searched, in_exact.photos) == (2, 14)
    assert in_exact.command == (
        f"vitmae-search spaces use 2 --library {library.folder} && "
        f"vitmae-search index {photos} --library {library.folder}"
    )
    assert run(shlex.split(command)[1:]) == 0
    assert library.search(query).coverage is None
    photo = library.photos()[0].photo_id
    assert library.similar(photo).coverage is None


def test_names_are_equal_composed_and_decomposed(
    tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    root = tmp_path / decomposed
    write_photo(root / decomposed / f"{decomposed}.jpg", 1)
    write_photo(root / "U\u0308ber.jpg", 2)
    typed = tmp_path / composed
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        assert library.index(typed, exclude=["\u00dcber*"]).found == 1
        assert library.index(typed, exclude=[f"{composed}/"]).found == 1
        assert library.index(typed).found == 2
        query = typed / composed / f"{composed}.jpg"
        found = library.search(str(query), where=SearchFilter(under=str(typed / composed)))
        assert [Path(hit.photo.path).name for hit in found.hits] == [f"{decomposed}.jpg"]
        assert found.known
        assert library.forget(typed).photos == 2
