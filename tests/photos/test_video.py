"""Frames of videos: which ones, what they show, and files that are something else."""

from __future__ import annotations

import io
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.videos import write_video
from vitmae_search.errors import DamagedPhoto, PhotoError, UnreadablePhoto, UnsupportedPhoto
from vitmae_search.photos import PHOTO_PROCESSES, decode, read_photo, scan, video
from vitmae_search.records import Stamp, VideoFrame, file_of

pytest.importorskip("av")


def color_at(path: Path, seconds: float) -> tuple[int, ...]:
    with Image.open(io.BytesIO(video.read_frame(str(path), seconds))) as image:
        found = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.mov", "mpeg4"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4"), ("a.mts", "mpeg2video")],
)
def test_one_frame_stands_for_each_scene(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, ["red", "lime", "blue"], codec=codec)
    times = video.find_frames(str(path))
    assert len(times) == 3, times
    assert times[0] < 2.5  # a container without an index begins where a key frame is found
    assert all(4 * number <= time < 4 * number + 2.5 for number, time in enumerate(times)), times
    for time, channel in zip(times, range(3), strict=True):
        color = color_at(path, time)
        assert color[channel] > 180
        assert sum(color) - color[channel] < 90


def test_a_still_scene_is_one_frame_and_a_long_one_at_most_a_hundred(tmp_path: Path) -> None:
    assert video.find_frames(str(write_video(tmp_path / "still.mp4", ["teal"], 9))) == [0.0]
    long = write_video(
        tmp_path / "long.mp4", ["red", "lime", "blue", "black", "white"] * 44, 2, size=(32, 32)
    )
    assert 60 <= len(video.find_frames(str(long))) <= 100


def test_a_frame_is_read_as_a_photo_always_the_same(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ["red", "lime"], size=(1952, 64))
    frame = VideoFrame(str(path), video.find_frames(str(path))[1])
    data = read_photo(frame.path)
    assert data == read_photo(frame.path)
    assert data == PHOTO_PROCESSES.read(frame.path)
    photo = decode(data)
    assert photo.image.size == (1920, 63)
    assert photo.metadata.taken_at is None


def test_the_time_of_an_apple_camera_is_the_frame_s(tmp_path: Path) -> None:
    tags = {"com.apple.quicktime.creationdate": "2023-05-06T12:13:14+0200"}
    path = write_video(tmp_path / "a.mov", ["red", "lime"], tags=tags)
    second = video.find_frames(str(path))[1]
    taken = decode(video.read_frame(str(path), second)).metadata.taken_at
    assert taken == datetime(2023, 5, 6, 12, 13, 14 + int(second))


@pytest.mark.parametrize(("turned", "black"), [(90, (32, 90)), (180, (90, 32)), (270, (32, 6))])
def test_a_turned_video_is_upright(tmp_path: Path, turned: int, black: tuple[int, int]) -> None:
    """The left half is black before it is turned counter-clockwise."""
    path = write_video(tmp_path / "a.mp4", ["white"], 1, turned=turned)
    image = decode(video.read_frame(str(path), 0)).image
    assert image.size == ((96, 64) if turned == 180 else (64, 96))
    opposite = image.width - 1 - black[0], image.height - 1 - black[1]
    assert max(image.getpixel(black)) < 40
    assert min(image.getpixel(opposite)) > 215


def test_paths_of_frames() -> None:
    frame = VideoFrame("/films/a #1.MP4", 3723.5)
    assert frame.path == "/films/a #1.MP4#t=3723.500"
    assert VideoFrame.of(frame.path) == frame
    assert (frame.time, VideoFrame("a.mp4", 12.9).time) == ("1:02:03", "0:12")
    for path in ("/films/a.mp4", "/photos/a.jpg#t=3.000", "/films/a.mp4#t=", "/films/a.mp4#t=x"):
        assert VideoFrame.of(path) is None
        assert file_of(path) == path


def test_what_is_no_video(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", ["red", "lime"]).read_bytes()
    cases = {
        "empty.mp4": b"",
        "text.mp4": b"no video at all" * 99,
        "cut.mp4": good[: len(good) // 3],
        "head.mp4": good[:64],
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {tmp_path}/good.mp4\n".encode(),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PhotoError) as raised:
            PHOTO_PROCESSES.call(video.find_frames, str(tmp_path / name), path=str(tmp_path / name))
        assert isinstance(raised.value, DamagedPhoto), (name, raised.value)
        assert name in str(raised.value)
    with pytest.raises(UnreadablePhoto, match="No such file"):
        video.find_frames(str(tmp_path / "absent.mp4"))
    with pytest.raises(DamagedPhoto, match=r"no picture at 99\.000 s"):
        video.read_frame(str(tmp_path / "good.mp4"), 99)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(PhotoError):
        video.find_frames(str(tmp_path / "pipe.mp4"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "can_be_decoded", lambda: False)
    with pytest.raises(UnsupportedPhoto, match=r"pip install 'vitmae-search\[video\]'"):
        video.find_frames(str(tmp_path / "a.mp4"))


def test_the_moving_part_of_a_live_photo_is_left_out(tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "IMG_1.MOV", "img_2.jpg", "IMG_2.mp4", "IMG_3.mov", "IMG_4.JPG", "IMG_4.avi"):
        (tmp_path / name).write_bytes(b"")

    def found(videos: bool) -> tuple[list[str], list[str]]:
        others: list[str] = []
        stamps: list[Stamp] = list(
            scan(str(tmp_path), on_problem=lambda _: None, on_other=others.append, videos=videos)
        )
        return [os.path.basename(one.path) for one in stamps], sorted(map(os.path.basename, others))

    stills = ["IMG_1.HEIC", "IMG_4.JPG", "img_2.jpg"]
    assert found(True) == (sorted([*stills, "IMG_3.mov", "IMG_4.avi"]), ["IMG_1.MOV", "IMG_2.mp4"])
    assert found(False)[0] == stills


def test_a_motion_photo_is_its_still(tmp_path: Path, write_photo) -> None:
    still = write_photo(tmp_path / "plain.jpg", 7).read_bytes()
    film = write_video(tmp_path / "film.mp4", ["red"], 1).read_bytes()
    photo = decode(still + film)
    assert photo.image.tobytes() == decode(still).image.tobytes()
    assert photo.metadata.notes == ()


def test_malformed_videos_are_failures_with_a_reason(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    good = write_video(tmp_path / "good.mp4", ["red", "lime"]).read_bytes()
    path = tmp_path / "malformed.mp4"
    for _ in range(40):
        data = np.frombuffer(good, np.uint8).copy()
        places = random.integers(0, len(data), random.choice([1, 20, 300]))
        data[places] = random.integers(0, 256, len(places))
        path.write_bytes(data.tobytes())
        try:
            for seconds in PHOTO_PROCESSES.call(video.find_frames, str(path), path=str(path)):
                PHOTO_PROCESSES.call(video.read_frame, str(path), seconds, path=str(path))
        except PhotoError as error:
            assert error.reason  # noqa: PT017  any of them may be read, or not
