"""Near-identical hits are one hit: bursts and small copies, page by page, where scores are measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.cli.main import run
from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.records import Hit, Photo, PhotoMetadata, ScoreCalibration
from vitmae_search.search.stacks import LARGEST, are_final, stacks_of

FRAMES, SMALL = 15, 4
BEGAN = datetime(2023, 5, 1, 12, 0, 0)
DATE_TIME_ORIGINAL = 0x9003


def photo(number: int, taken_at: datetime | None = None) -> Photo:
    metadata = PhotoMetadata(10, 10, "JPEG", taken_at)
    return Photo(number, f"/{number}.jpg", 1, 1, False, number, "0" * 64, metadata)


def unit(*scores: float) -> np.ndarray:
    """Vectors whose scores with (1, 0) are these."""
    return np.array([[score, np.sqrt(1 - score * score)] for score in scores], np.float32)


def test_frames_of_a_burst_need_a_lower_score_than_copies() -> None:
    vectors = unit(1.0, 0.97, 0.99, 0.97, 0.5)
    soon, later = BEGAN + timedelta(seconds=9), BEGAN + timedelta(seconds=11)
    photos = [photo(1, BEGAN), photo(2, soon), photo(3), photo(4, later), photo(5, BEGAN)]
    # From 0.9 on two pictures are the same photo, and from 0.99 on one is a copy of the other.
    assert stacks_of(photos, vectors, 0.9) == [[0, 1, 2], [3], [4]]
    assert stacks_of(photos, vectors, 0.98) == [[0], [1, 3], [2], [4]]
    assert stacks_of([], np.empty((0, 2), np.float32), 0.9) == []


def test_the_first_stacks_do_not_change_with_further_hits() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(3000, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    photos = [photo(i) for i in range(len(vectors))]
    everything = stacks_of(photos, vectors, 0.9, reach=40)
    for hits in (100, 300, 1000):
        some = stacks_of(photos[:hits], vectors[:hits], 0.9, reach=40)
        final = next((n for n in range(len(some)) if not are_final(some[: n + 1], hits, reach=40)), len(some))
        assert some[:final] == everything[:final]
    alike = stacks_of([photo(i) for i in range(LARGEST + 5)], np.tile(unit(1.0), (LARGEST + 5, 1)), 0.9)
    assert [len(stack) for stack in alike] == [LARGEST, 5]
    assert are_final(alike[:1], LARGEST + 5)


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory, real_photos: Mapping[str, Path]) -> Iterator[Library]:
    """A burst of one scene, small copies of its first frame, and other photos, in a calibrated space."""
    base = tmp_path_factory.mktemp("burst")
    folder = base / "photos"
    folder.mkdir()
    with Image.open(real_photos["coffee"]) as opened:
        scene = opened.convert("RGB").resize((600, 400))
    for frame in range(FRAMES):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[DATE_TIME_ORIGINAL] = (
            f"{BEGAN + timedelta(seconds=frame // 3):%Y:%m:%d %H:%M:%S}"
        )
        view = scene.crop((2 * frame, frame, 560 + 2 * frame, 380 + frame))
        view.save(folder / f"frame-{frame:02}.jpg", quality=92, exif=exif)
    with Image.open(folder / "frame-00.jpg") as first:
        for number in range(SMALL):
            first.resize((280 + 40 * number, 190 + 27 * number)).save(folder / f"small-{number}.jpg")
    for name in ("astronaut", "chelsea", "rocket", "china", "flower", "coins"):
        with Image.open(real_photos[name]) as opened:
            opened.convert("RGB").resize((300, 200)).save(folder / f"{name}.jpg")
    with Library.open(base / "library", embedder="color_layout") as library:
        library.index([folder])
        width = library.spaces()[0].dimension
        calibration = ScoreCalibration(0.8, 0.3, 200)
        library.derive_space(Projection([np.eye(width)], [np.zeros(width)], "head", calibration=calibration))
        yield library


def named(hits: tuple[Hit, ...]) -> list[str]:
    return [Path(hit.photo.path).stem for hit in hits]


def test_a_burst_and_its_small_copies_are_one_hit(burst: Library) -> None:
    frame = next(p for p in burst.photos() if p.path.endswith("frame-00.jpg"))
    one_by_one = burst.similar(frame.photo_id, k=30, stacks=False).hits
    assert len(one_by_one) == FRAMES + SMALL - 1 + 6
    assert all(name.startswith(("frame", "small")) for name in named(one_by_one)[: FRAMES + SMALL - 1])
    assert not any(hit.stacked for hit in one_by_one)
    stacked = burst.similar(frame.photo_id, k=30).hits
    assert len(stacked) < 10
    assert len(stacked[0].stacked) > 10
    # Nothing is lost: each hit is there once, with its score.
    flat = [one for hit in stacked for one in (hit, *hit.stacked)]
    assert sorted(named(tuple(flat))) == sorted(named(one_by_one))
    assert {hit.photo.photo_id: hit.score for hit in flat} == pytest.approx(
        {hit.photo.photo_id: hit.score for hit in one_by_one}
    )
    assert [hit.rank for hit in stacked] == list(range(1, len(stacked) + 1))


def test_pages_of_stacks_fit_each_other(burst: Library) -> None:
    frame = next(p for p in burst.photos() if p.path.endswith("frame-00.jpg"))
    whole = burst.similar(frame.photo_id, k=30).hits
    pages = [burst.similar(frame.photo_id, k=2, offset=offset).hits for offset in range(0, len(whole), 2)]
    assert [hit for page in pages for hit in page] == list(whole)


def test_a_space_without_measured_scores_has_no_stacks(burst: Library) -> None:
    plain = next(space.space_id for space in burst.spaces() if space.calibration is None)
    found = burst.search(burst.photos()[0].path, k=30, space=plain)
    assert len(found.hits) == FRAMES + SMALL + 6


def test_json_lists_what_is_stacked_and_a_switch_turns_it_off(
    burst: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = next(p.path for p in burst.photos() if p.path.endswith("frame-00.jpg"))
    command = ["search", frame, "-k", "30", "--library", str(burst.folder)]

    def printed(*options: str) -> str:
        capsys.readouterr()
        assert run([*command, *options]) == 0
        return capsys.readouterr().out

    said = json.loads(printed("--json"))["hits"]
    assert sum(1 + len(hit.get("stacked", ())) for hit in said) == FRAMES + SMALL + 6
    assert set(said[0]["stacked"][0]) == {
        "score",
        "photo_id",
        "path",
        "copies",
        "stacked",
        "video",
        "seconds",
    }
    assert f"(and {len(said[0]['stacked'])} near-identical)" in printed()
    assert len(json.loads(printed("--json", "--no-stacks"))["hits"]) == FRAMES + SMALL + 6
