"""What classifiers say: recorded whole, shared by copies, replaced, and gone with the content."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter
from vitmae_search.records import SearchFilter, Tag


@pytest.fixture
def pets(writer, space, make):
    """Two contents, cat (with a copy) and dog. Returns their ids."""
    items = [make.item("/p/cat.jpg", "cat"), make.item("/p/copy.jpg", "cat"), make.item("/q/dog.jpg", "dog")]
    writer.record_batch(space, items)
    return {word: writer.content_id(make.digest(word)) for word in ("cat", "dog")}


def classifier(writer, fingerprint="f", source="/models/pets") -> int:
    return writer.ensure_classifier(fingerprint=fingerprint, source=source, model=f"model {fingerprint}")


def rows(writer, table: str) -> int:
    with writer._database.read_transaction() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_tags_come_back_the_surest_first_and_copies_share_them(address, writer, pets, folder, make):
    tags = [("cat", 0.75), ("<b>![x](y)</b>", 0.125), ("猫", 0.0)]
    writer.record_tags(classifier(writer), [(pets["cat"], tags), (pets["dog"], [("dog", 1.0)])])
    with Catalog.open(folder, address) as reader:
        assert reader.tags(pets["cat"]) == [Tag(name, sure, "model f") for name, sure in tags]
        assert {make.photo_at(reader, p).content_id for p in ("/p/cat.jpg", "/p/copy.jpg")} == {pets["cat"]}
        assert reader.tag_counts() == {"<b>![x](y)</b>": 2, "cat": 2, "猫": 2, "dog": 1}
        assert list(reader.tag_counts())[-1] == "dog"
        found = reader.photos(SearchFilter(tag="cat", min_confidence=0.75))
        assert sorted(photo.path for photo in found) == ["/p/cat.jpg", "/p/copy.jpg"]
        assert reader.count_photos(SearchFilter(tag="cat", min_confidence=0.7500001)) == 0
        assert reader.count_photos(SearchFilter(tag="ca")) == 0
        assert reader.check() == []


def test_photos_that_are_not_on_disk_do_not_count(writer, pets, make):
    writer.record_tags(classifier(writer), [(pets["cat"], [("cat", 1.0)])])
    writer.mark_missing([make.photo_at(writer, "/p/cat.jpg").photo_id])
    assert writer.tag_counts() == {"cat": 1}
    writer.mark_missing([make.photo_at(writer, "/p/copy.jpg").photo_id])
    assert writer.tag_counts() == {}
    assert [tag.name for tag in writer.tags(pets["cat"])] == ["cat"]


def test_two_classifiers_keep_their_tags_apart(writer, pets):
    one, two = classifier(writer), classifier(writer, "g", "/models/places")
    writer.record_tags(one, [(pets["cat"], [("cat", 0.5)])])
    writer.record_tags(two, [(pets["cat"], [("sofa", 0.5), ("cat", 0.25)])])
    assert [(tag.name, tag.classifier) for tag in writer.tags(pets["cat"])] == [
        ("cat", "model f"), ("sofa", "model g"), ("cat", "model g"),
    ]  # fmt: skip
    assert writer.tag_counts() == {"cat": 2, "sofa": 2}  # each photo once
    writer.record_tags(one, [(pets["cat"], [])])
    assert [tag.name for tag in writer.tags(pets["cat"])] == ["sofa", "cat"]


def test_a_classifier_that_was_trained_anew_takes_its_own_place(writer, pets):
    writer.record_tags(classifier(writer), [(pets["cat"], [("cat", 0.5)]), (pets["dog"], [("dog", 0.5)])])
    anew = classifier(writer, "trained anew")
    assert anew != classifier(writer)
    assert {one.content_id for one in writer.taggable(anew)} == set(pets.values())
    writer.record_tags(anew, [(pets["cat"], [("lion", 0.5)])])
    assert [tag.name for tag in writer.tags(pets["cat"])] == ["lion"]
    assert [tag.name for tag in writer.tags(pets["dog"])] == ["dog"]  # until it is seen
    assert [one.content_id for one in writer.taggable(anew)] == [pets["dog"]]
    assert [one.content_id for one in writer.taggable(classifier(writer))] == [pets["cat"]]


def test_what_is_left_to_classify(writer, pets, make):
    number = classifier(writer)
    first, second = writer.taggable(number)
    assert (first.content_id, first.digest) == (pets["cat"], make.digest("cat"))
    assert [stamp.path for stamp in first.files] == ["/p/cat.jpg", "/p/copy.jpg"]
    assert first.files[0] == make.stamp("/p/cat.jpg")
    assert second.content_id == pets["dog"]
    assert [one.content_id for one in writer.taggable(number, "/q")] == [pets["dog"]]
    writer.record_tags(number, [(pets["cat"], [])])  # seen, though it got no tag
    assert [one.content_id for one in writer.taggable(number)] == [pets["dog"]]
    assert writer.taggable(number, "/p") == []
    assert len(writer.taggable(number, again=True)) == 2
    assert (writer.count_classified(number), writer.count_classified(number, "/q")) == (1, 0)
    writer.mark_missing([photo.photo_id for photo in writer.photos()])
    assert writer.taggable(number, again=True) == []
    assert writer.count_classified(number) == 0


def test_tags_go_with_their_content(writer, space, pets, make):
    writer.record_tags(classifier(writer), [(number, [("pet", 0.5)]) for number in pets.values()])
    writer.remove_photos([make.photo_at(writer, "/p/cat.jpg").photo_id])
    assert writer.tag_counts() == {"pet": 2}  # the copy has them still
    writer.remove_photos([make.photo_at(writer, "/p/copy.jpg").photo_id])
    assert writer.tag_counts() == {"pet": 1}
    changed = make.item("/q/dog.jpg", "another dog", photo_id=make.photo_at(writer, "/q/dog.jpg").photo_id)
    writer.record_batch(space, [changed])
    assert writer.tag_counts() == {}
    assert (rows(writer, "tags"), rows(writer, "classified")) == (0, 0)
    assert writer.check() == []


def test_a_content_that_is_gone_is_passed_over(writer, pets):
    writer.record_tags(classifier(writer), [(999, [("ghost", 1.0)]), (pets["dog"], [("dog", 1.0)])])
    assert writer.tag_counts() == {"dog": 1}


@pytest.mark.parametrize(
    "tags",
    [[("cat", 1.5)], [("cat", -0.1)], [("cat", float("nan"))], [("", 0.5)], [("cat", 0.5), ("cat", 0.4)]],
)
def test_nonsense_is_refused_and_nothing_of_its_batch_is_kept(writer, pets, tags):
    with pytest.raises(ValueError, match="tag"):
        writer.record_tags(classifier(writer), [(pets["dog"], [("dog", 1.0)]), (pets["cat"], tags)])
    assert writer.tag_counts() == {}


def test_a_source_may_have_any_name(writer, pets):
    odd = [os.fsdecode(b"/models/\xff"), os.fsdecode(b"/models/\xfe")]
    first, second = (classifier(writer, name, name) for name in ("f", "g"))
    numbers = [
        writer.ensure_classifier(fingerprint=f"odd {n}", source=source, model="m")
        for n, source in enumerate(odd)
    ]
    for number in (first, second, *numbers):
        writer.record_tags(number, [(pets["cat"], [("cat", 0.5)])])
    assert len(writer.tags(pets["cat"])) == 4


def test_many_contents_fit_into_one_batch(writer, space, make):
    writer.record_batch(space, [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(2500)])
    number = classifier(writer)
    batch = [(one.content_id, [("a", 0.5), ("b", 0.25)]) for one in writer.taggable(number)]
    writer.record_tags(number, batch)
    assert writer.tag_counts() == {"a": 2500, "b": 2500}
    writer.record_tags(number, batch)
    assert writer.tag_counts() == {"a": 2500, "b": 2500}


@pytest.mark.sqlite_only("PostgreSQL refuses rows that point to nothing")
def test_tags_of_nothing_are_found_and_mended(writer, pets):
    number = classifier(writer)
    writer.record_tags(number, [(pets["dog"], [("dog", 1.0)])])
    raw_insert(writer, "INSERT INTO tags VALUES (999, ?, 1, 'ghost', 0.5)", number)
    raw_insert(writer, "INSERT INTO classified VALUES (?, 999)", pets["cat"])
    assert len(writer.check()) == 2
    assert all("points to a row of" in problem for problem in writer.check())
    assert len(writer.repair()) == 2
    assert writer.check() == []
    assert writer.tag_counts() == {"dog": 1}


def raw_insert(writer, statement: str, value: int) -> None:
    raw = sqlite3.connect(writer.folder / "catalogue.sqlite3")
    raw.execute(statement, (value,))
    raw.commit()
    raw.close()


CHILD = """
import sys
from pathlib import Path

from vitmae_search.catalog import CatalogWriter, tags

writer = CatalogWriter.open_writer(Path(sys.argv[1]), wait=10)
number = writer.ensure_classifier(fingerprint="f", source="s", model="m")
ids = [one.content_id for one in writer.taggable(number)]
writer.record_tags(number, [(i, [("first", 0.5)]) for i in ids[:5]])
real = tags.insert
def hang(row):
    if row is tags.TagRow:
        print("inside", flush=True)
        sys.stdin.read()
    return real(row)
tags.insert = hang
writer.record_tags(number, [(i, [("second", 0.5)]) for i in ids[3:]])
"""


def test_a_kill_inside_a_batch_leaves_the_whole_batches_before(folder, make):
    with CatalogWriter.open_writer(folder) as writer:
        items = [make.item(f"/p/{n}.jpg", f"w{n}") for n in range(8)]
        writer.record_batch(make.space(writer).space_id, items)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, os.fspath(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout.readline().strip() == b"inside"  # old tags are deleted, new ones not written
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with CatalogWriter.open_writer(folder, wait=0) as writer:
        assert writer.tag_counts() == {"first": 5}
        number = writer.ensure_classifier(fingerprint="f", source="s", model="m")
        assert len(writer.taggable(number)) == 3
        assert writer.check() == []
