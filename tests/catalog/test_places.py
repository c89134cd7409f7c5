"""Photos taken in a box or a circle, with a lens, in files of a size; and places counted for a map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vitmae_search.catalog.places import around
from vitmae_search.records import GeoBox, GeoCircle, PhotoMetadata, PlaceCount, SavedSearch, SearchFilter

PLACES = {
    "vienna": (48.2082, 16.3738),
    "graz": (47.0707, 15.4395),  # 145 km from Vienna
    "suva": (-18.1416, 178.4419),
    "apia": (-13.8333, -171.7667),  # across the date line from Suva, 1,150 km away
    "pole": (90.0, 12.0),
    "alert": (82.5, -62.3),  # 834 km from the pole
    "nowhere": (None, None),
}


@pytest.fixture
def placed(writer, space, make):
    items = [
        replace(
            make.item(f"/p/{name}.jpg", name, size=number * 10**6),
            metadata=PhotoMetadata(
                4,
                3,
                "JPEG",
                latitude=lat,
                longitude=lon,
                lens=None if lat is None else f"Lens {name.title()}",
            ),
        )
        for number, (name, (lat, lon)) in enumerate(PLACES.items())
    ]
    writer.record_batch(space, [*items, make.item("/p/copy.jpg", "graz", known=True)])
    return writer


def found(catalog, space, **where) -> set[str]:
    asked = SearchFilter(**where)
    names = {photo.path[3:-4] for photo in catalog.photos(asked)}
    assert len(names) == catalog.count_photos(asked)
    by_search = catalog.photos_of(catalog.searchable_ids(space, asked)).values()
    assert names <= {photo.path[3:-4] for photos in by_search for photo in photos}
    return names


@pytest.mark.parametrize(
    ("box", "names"),
    [
        (GeoBox(47, 15, 49, 17), {"vienna", "graz", "copy"}),
        (GeoBox(48, 15, 49, 17), {"vienna"}),
        (GeoBox(-20, 170, -10, -170), {"suva", "apia"}),  # across the date line
        (GeoBox(-20, -170, -10, 170), set()),
        (GeoBox(-90, -180, 90, 180), {*PLACES, "copy"} - {"nowhere"}),
        (GeoBox(90, 12, 90, 12), {"pole"}),
    ],
)
def test_boxes(placed, space, box, names):
    assert found(placed, space, box=box) == names


@pytest.mark.parametrize(
    ("circle", "names"),
    [
        (GeoCircle(48.2082, 16.3738, 0.001), {"vienna"}),
        (GeoCircle(48.2, 16.4, 140), {"vienna"}),
        (GeoCircle(48.2082, 16.3738, 146), {"vienna", "graz", "copy"}),
        (GeoCircle(-18, 179.9, 1100), {"suva", "apia"}),
        (GeoCircle(-18, -179.9, 1100), {"suva", "apia"}),
        (GeoCircle(89.9, -100, 100), {"pole"}),
        (GeoCircle(89.9, 118, 900), {"pole", "alert"}),
        (GeoCircle(0, 0, 20_100), {*PLACES, "copy"} - {"nowhere"}),
        (GeoCircle(0, 0, 1), set()),
    ],
)
def test_circles(placed, space, circle, names):
    assert found(placed, space, near=circle) == names


def test_the_box_around_a_circle_goes_on_beyond_the_date_line():
    box = around(GeoCircle(0, 179.9, 111))
    assert (round(box.west), round(box.east)) == (179, -179)


def test_lenses_sizes_and_whether_a_place_is_known(placed, space):
    assert found(placed, space, lens="LENS v") == {"vienna"}
    assert found(placed, space, has_place=False) == {"nowhere"}
    assert "nowhere" not in found(placed, space, has_place=True)
    assert found(placed, space, min_bytes=5 * 10**6) == {"alert", "nowhere"}
    assert found(placed, space, min_bytes=2, max_bytes=10**6) == {"graz"}
    assert found(placed, space, lens="graz", near=GeoCircle(47, 15, 60), has_place=True) == {"graz", "copy"}
    assert placed.count_by("lens")["Lens Graz"] == 2
    assert placed.count_by("place") == {"on": 7, "off": 1}
    assert placed.count_by("size") == {"0-1": 2, "1-5": 4, "5-20": 2}
    assert placed.count_by("size", SearchFilter(has_place=False)) == {"5-20": 1}


def test_places_are_counted_and_rounded_until_they_are_few(placed):
    counts = placed.count_places()
    assert PlaceCount(47.071, 15.44, 2) in counts
    assert sum(place.photos for place in counts) == 7
    assert [place.latitude for place in placed.count_places(view=GeoBox(40, 0, 60, 16))] == [47.071]
    assert placed.count_places(SearchFilter(lens="vienna")) == [PlaceCount(48.208, 16.374, 1)]
    assert len(placed.count_places(most=3)) == 3


def test_many_places_are_counted_by_the_five_degrees(writer, space, make):
    items = [
        replace(
            make.item(f"/p/{n}.jpg", f"w{n}"),
            metadata=PhotoMetadata(4, 3, "JPEG", latitude=9.0 + n / 10, longitude=19.0 + n % 3),
        )
        for n in range(20)
    ]
    writer.record_batch(space, items)
    assert writer.count_places(most=2) == [PlaceCount(10.0, 20.0, 20)]
    assert len(writer.count_places(most=20)) == 20


def test_a_saved_search_keeps_its_places(placed):
    where = SearchFilter(
        lens="x", box=GeoBox(1, 2, 3, 4), near=GeoCircle(5, 6, 7), has_place=True, max_bytes=9
    )
    placed.save_search(SavedSearch("somewhere", where=where))
    assert placed.saved_searches()[0].where == where
