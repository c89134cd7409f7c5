"""The filters of places, lenses, sizes and relative dates, as `list` has them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

Command = Callable[..., Any]


@pytest.fixture
def placed(vitmae_search: Command, tmp_path: Path) -> Path:
    """Photos of Vienna (16.4° E), of Graz (15.4° E, today), and of nowhere."""
    folder = tmp_path / "placed"
    folder.mkdir()
    for number, (name, point) in enumerate(
        {"vienna": (48.2, 16.4), "graz": (47.1, 15.4), "nowhere": None}.items()
    ):
        exif = Image.Exif()
        taken = datetime(2001, 5, 6) if name == "vienna" else datetime.now() - timedelta(1)
        exif.get_ifd(IFD.Exif).update(
            {Base.DateTimeOriginal: f"{taken:%Y:%m:%d %H:%M:%S}", Base.LensModel: f"Zoom {name}"}
        )
        if point:
            gps = {GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (point[0], 0.0, 0.0)}
            gps |= {GPS.GPSLongitudeRef: "E", GPS.GPSLongitude: (point[1], 0.0, 0.0)}
            exif.get_ifd(IFD.GPSInfo).update(gps)
        Image.new("RGB", (40, 30), (60 * number, 99, 200)).save(folder / f"{name}.jpg", exif=exif)
    with (folder / "nowhere.jpg").open("ab") as file:
        file.write(bytes(50_000))
    assert vitmae_search("index", folder).code == 0
    return folder


def test_filters(vitmae_search: Command, placed: Path) -> None:
    def found(*options: object) -> set[str]:
        listed = vitmae_search("list", "--under", placed, *options, "--json").json
        return {Path(photo["path"]).stem for photo in listed["photos"]}

    assert found("--box", "47,15,47.5,16") == {"graz"}
    assert found("--box", "47,170,49,-170") == set()
    assert found("--near", "48.2,16.4") == {"vienna"}
    assert found("--near", placed / "vienna.jpg", "--within", "200") == {"vienna", "graz"}
    assert found("--has-place") == {"vienna", "graz"}
    assert found("--no-place") == {"nowhere"}
    assert found("--lens", "zoom g") == {"graz"}
    assert found("--min-size", "50kB") == {"nowhere"}
    assert found("--max-size", "0.05 MB") == {"vienna", "graz"}
    assert found("--after", "last 30 days") == found("--after", "2w") == {"graz", "nowhere"}
    one = vitmae_search("list", "--lens", "vienna", "--json").json["photos"][0]
    assert (one["lens"], one["latitude"], one["longitude"]) == ("Zoom vienna", 48.2, 16.4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--box", "1,2,3"], "not SOUTH,WEST,NORTH,EAST"),
        (["--box", "1,2,3,999"], "a longitude is -180 to 180"),
        (["--near", "91,5"], "a latitude is -90 to 90"),
        (["--near", "no-such.jpg"], "no-such.jpg"),
        (["--within", "5"], "--within goes with --near"),
        (["--min-size", "big"], "not a size"),
        (["--after", "someday"], "someday"),
    ],
)
def test_what_is_wrong_is_said(vitmae_search: Command, placed: Path, options: list[str], says: str) -> None:
    done = vitmae_search("list", *options)
    assert done.code in (1, 2)
    assert says in done.err


def test_near_a_photo_without_a_place(vitmae_search: Command, placed: Path) -> None:
    assert "does not say where it was taken" in vitmae_search("list", "--near", placed / "nowhere.jpg").err
