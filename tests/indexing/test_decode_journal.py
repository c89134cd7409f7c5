"""A run that is ended from outside leaves word of what it was decoding; the next one isolates that."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import bad_decoders
from vitmae_search.indexing.decode_journal import DEATHS_REASON, FILE_NAME, DecodeJournal

_PARENT = """
import os, sys
from pathlib import Path
from tests.helpers import bad_decoders
from tests.indexing.conftest import Bench, TinyEmbedder
TinyEmbedder.prepare = staticmethod(bad_decoders.prepare)
os.environ["TEST_PARENT"] = str(os.getpid())
Bench(Path(sys.argv[1])).index(workers=2)
"""


@pytest.fixture
def killed_by_a_photo(bench):
    """Index in another process, which a photo kills whose width says so; return whether it did."""

    def run():
        command = [sys.executable, "-c", _PARENT, os.fspath(bench.photos.parent)]
        code = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
        assert code in (0, -signal.SIGKILL)
        return code != 0

    return run


@pytest.fixture
def killed(tmp_path):
    """Make a folder with what journals have now, as if their processes were killed."""

    def copy(name):
        folder = tmp_path.parent / f"{tmp_path.name} {name}"
        shutil.copytree(tmp_path, folder)
        return folder

    return copy


def suspects_in(folder):
    with closing(DecodeJournal(folder)) as journal:
        return dict(journal.suspects)


def test_photos_that_were_in_flight_are_suspects_and_one_alone_has_a_death_more(tmp_path, killed):
    with closing(DecodeJournal(tmp_path)) as journal:
        assert journal.suspects == {}
        with journal.decoding(["a.jpg"]):
            pass
        with journal.decoding(["b.jpg", "\udce9.jpg"]), journal.decoding(["c.jpg"]):
            folder = killed("first")
    assert suspects_in(folder) == {"b.jpg": 0, "\udce9.jpg": 0, "c.jpg": 0}
    with closing(DecodeJournal(folder)) as journal, journal.decoding(["c.jpg"]):
        shutil.copytree(folder, tmp_path / "second")
    with closing(DecodeJournal(tmp_path / "second")) as journal:
        assert journal.suspects == {"b.jpg": 0, "\udce9.jpg": 0, "c.jpg": 1}
        with journal.decoding(["c.jpg"]):
            pass
    assert suspects_in(tmp_path / "second") == {"b.jpg": 0, "\udce9.jpg": 0}, "they were not reached"


def test_runs_that_share_a_folder_have_a_journal_each_and_take_over_those_of_ended_ones(tmp_path, killed):
    one, other = DecodeJournal(tmp_path), DecodeJournal(tmp_path)
    with one.decoding(["a.jpg"]), other.decoding(["b.jpg"]):
        assert suspects_in(tmp_path) == {}, "both run"
        left = killed("both")
    assert suspects_in(left) == {"a.jpg": 0, "b.jpg": 0}
    with one.decoding(["a.jpg"]):
        path = killed("one") / FILE_NAME
    os.rename(path, tmp_path / "decoding-7.json")
    other.take_over()
    assert other.suspects == {"a.jpg": 0}, "that run has ended meanwhile"
    one.close()
    with other.decoding(["a.jpg"]):
        pass
    other.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"decoding": 1, "suspects": {}}', '{"decoding": []}'])
def test_a_damaged_journal_says_nothing(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    assert suspects_in(tmp_path) == {}


def test_no_journal_is_left_by_a_run_that_ends(bench, fill):
    fill(12)
    bench.index()
    assert not (bench.library / FILE_NAME).exists()


def test_a_photo_that_ends_the_run_itself_is_isolated_and_named(bench, fill, killed_by_a_photo):
    paths = fill(40)
    Image.new("RGB", (bad_decoders.KILLS_RUN, 50)).save(bench.photos / "020 kills.png")
    assert killed_by_a_photo()
    left = json.loads((bench.library / FILE_NAME).read_bytes().split(b"\n")[0])
    assert os.fspath(bench.photos / "020 kills.png") in left["decoding"]
    assert killed_by_a_photo()
    with bench.catalog() as catalog:
        assert catalog.count_photos() >= len(paths) - 16, "all that was not being decoded was read first"
    assert killed_by_a_photo()
    with bench.catalog() as catalog:
        assert catalog.count_photos() == len(paths), "and what was not being decoded alone"
    report = bench.index()
    assert (report.unchanged, report.failed) == (40, 1)
    assert report.failures[0].reason == DEATHS_REASON
    assert not (bench.library / FILE_NAME).exists()
    assert bench.index().failures == report.failures, "it is not tried again"
    bench.plugin.before_row = lambda row: None
    assert bench.index(retry_failed=True).added == 1, "here it does no harm"


def test_innocent_suspects_are_read_as_ever(bench, fill):
    paths = fill(12)
    bench.library.mkdir()
    names = [os.fspath(path) for path in paths[3:6]]
    (bench.library / FILE_NAME).write_text(json.dumps({"decoding": names, "suspects": {names[0]: 1}}))
    assert bench.index().added == 12
    assert not (bench.library / FILE_NAME).exists()
    bench.assert_mirrors_disk()
