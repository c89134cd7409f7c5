"""The moving parts of Live and motion photos are found, and nothing else is taken for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from vitmae_search.photos import find_moving_part

VIDEO = b"\0\0\0\x18ftypmp42" + bytes(500)
OLD = f'<rdf:Description GCamera:MicroVideo="1" GCamera:MicroVideoOffset="{len(VIDEO)}"/>'
NEW = (
    '<Container:Item Item:Mime="image/jpeg" Item:Semantic="Primary" Item:Length="0"/>'
    f'<Container:Item Item:Mime="video/mp4" Item:Length="{len(VIDEO)}" Item:Semantic="MotionPhoto"/>'
)


def write_still(path: Path, xmp: str = "") -> Path:
    """A JPEG, with XMP where it is given."""
    Image.new("RGB", (32, 24), "red").save(path, "JPEG", xmp=xmp.encode())
    return path


@pytest.mark.parametrize("video", ["a.mov", "a.MOV", "a.mp4"])
def test_a_video_of_the_same_name_is_the_moving_part(tmp_path: Path, video: str) -> None:
    still = write_still(tmp_path / "a.JPG")
    assert find_moving_part(str(still)) is None
    (tmp_path / video).write_bytes(VIDEO)
    part = find_moving_part(str(still))
    assert part is not None
    assert (part.file, part.offset, part.length) == (str(tmp_path / video), 0, len(VIDEO))
    assert find_moving_part(str(tmp_path / video)) is None


@pytest.mark.parametrize("xmp", [OLD, NEW])
def test_the_video_behind_the_end_of_a_jpeg_is_the_moving_part(tmp_path: Path, xmp: str) -> None:
    still = write_still(tmp_path / "a.jpg", xmp)
    size = still.stat().st_size
    assert find_moving_part(str(still)) is None  # its XMP says so, but the video was lost
    still.write_bytes(still.read_bytes() + VIDEO)
    part = find_moving_part(str(still))
    assert part is not None
    assert (part.file, part.offset, part.length) == (str(still), size, len(VIDEO))


def test_a_video_that_goes_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "isfile", lambda path: True)
    assert find_moving_part(str(tmp_path / "a.jpg")) is None


@pytest.mark.parametrize("name", ["a.png", "gone.jpg"])
def test_other_files_have_none(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert find_moving_part(str(tmp_path / name)) is None
