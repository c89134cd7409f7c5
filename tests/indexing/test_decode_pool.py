"""Decoding in processes: the same library as from threads, and none is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from vitmae_search.embedding import GuardedPrepare
from vitmae_search.embedding.guard_prepare import guard_prepare
from vitmae_search.errors import PhotoError, PluginBroken, StorageError
from vitmae_search.indexing import decode_pool, index_folders, reader
from vitmae_search.indexing.decode_pool import DecodingProcess, DecodingProcesses, ProcessDied
from vitmae_search.indexing.plan import Job
from vitmae_search.indexing.reader import PhotoReader, bundles
from vitmae_search.library import Library
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, digest
from vitmae_search.records import Stamp

LIMIT = 30

PLUGIN = """
import os
import numpy as np
from PIL import Image
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo
HOST = os.environ["TEST_HOST"]
def prepare(image):
    print("a word that is no answer")
    pixels = np.asarray(image.resize((4, 4), Image.Resampling.BOX))
    if os.environ.get("TEST_CRASH") == str(image.size) and str(os.getpid()) != HOST:
        os._exit(1)
    return pixels
class Odd(Embedder):
    model, dimension, input_size, identity, provenance = "odd", 48, 8, {}, {}
    prepare = staticmethod(prepare)
    def embed(self, batch):
        rows = batch.reshape(len(batch), -1).astype(np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
    def close(self): pass
class Plugin(EmbedderPlugin):
    info = PluginInfo(name="odd", title="Odd")
    def open(self, options, *, device, precision): return Odd()
plugin = Plugin()
"""


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found = []

    class Counted(decode_pool.DecodingProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            found.append(self._process)

    monkeypatch.setattr(decode_pool, "DecodingProcess", Counted)
    return found


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """`odd(folder)`: index with a plugin that prints, and crashes at pictures of the size `TEST_CRASH`."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "odd.py").write_text(PLUGIN)
    monkeypatch.setenv("TEST_HOST", str(os.getpid()))

    def index(folder):
        def in_processes(*arguments, **options):
            return index_folders(*arguments, **{**options, "workers": 1}, processes=True)

        with monkeypatch.context() as patch:
            patch.setattr("vitmae_search.library.library.index_folders", in_processes)
            with Library.open(
                tmp_path / "odd", embedder="odd", plugin_folders=[tmp_path / "plugins"]
            ) as library:
                report = library.index(folder)
                return report, {photo.path for photo in library.photos()}

    return index


def test_processes_make_the_same_library(bench, new_bench, fill, jpegs, started):
    fill(40)
    for number in range(12):
        (bench.photos / f"copy{number}.jpg").write_bytes(jpegs(number * 3))
        (bench.photos / f"bad{number}.jpg").write_bytes(jpegs(number)[: 200 + number])
    (bench.photos / os.fsdecode(b"caf\xe9 \n.jpg")).write_bytes(jpegs(99))
    threads = new_bench()
    threads.photos = bench.photos
    report, other = bench.index(processes=True), threads.index(processes=False)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)
    assert (report.added, report.failed) == (other.added, other.failed) == (53, 12)
    assert report.failures == other.failures
    assert bench.embedded == threads.embedded == 41, "each content once"
    bench.assert_mirrors_disk()
    for folder in (bench.library, threads.library):
        store = ThumbnailStore(folder / "thumbnails")
        assert store.get(digest(jpegs(0))) == ThumbnailStore(bench.library / "thumbnails").get(
            digest(jpegs(0))
        )
    with bench.catalog() as mine, threads.catalog() as theirs:
        assert [p.metadata for p in mine.photos()] == [p.metadata for p in theirs.photos()]
    assert bench.index().unchanged == 53


@pytest.mark.parametrize(("workers", "files", "size", "wanted", "number"), [
    (4, 10_000, 0, None, 0), (5, 319, 0, None, 0), (5, 320, 0, None, 1), (5, 20, 5_000_000, None, 1),
    (5, 20, 4_900_000, None, 0), (1, 1, 0, True, 1), (64, 10_000, 0, False, 0),
])  # fmt: skip
def test_processes_are_started_where_they_pay(monkeypatch, workers, files, size, wanted, number):
    class Stand:
        shape, dtype = (6, 6, 3), "uint8"

    made = []
    monkeypatch.setattr(reader, "DecodingProcesses", lambda *arguments: made.append(arguments))
    jobs = [Job(Stamp("", size, 0, 0))] * files
    reader.Reading(None, Stand, workers, 32, wanted)._processes(jobs)
    assert len(made) == number


def test_a_crash_is_one_photos_failure(odd, jpegs, tmp_path, monkeypatch):
    """Nor do the files beside it, or their copies, suffer."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.jpg").write_bytes(jpegs(number % 20))
    Image.new("RGB", (77, 33)).save(folder / "05 crash.png")
    monkeypatch.setenv("TEST_CRASH", "(77, 33)")
    report, paths = odd(folder)
    assert (report.added, report.failed) == (30, 1)
    assert report.failures[0].path.endswith("05 crash.png")
    assert "a crash, or no memory" in report.failures[0].reason
    assert len(paths) == 30


def test_a_copy_of_a_photo_at_which_its_process_dies_fails_as_well(bench, jpegs, started, monkeypatch):
    """Though others have taken its content for one that is still to come."""
    for name in ("a.jpg", "b.jpg"):
        (bench.photos / name).write_bytes(jpegs(0))
    claim, decode = reader.PhotoReader._claim, decode_pool.DecodingProcess.decode
    waits = threading.Event()

    def claimed(self, name, names):
        first = claim(self, name, names)
        return first or bool(waits.set())

    def dies(self, wanted):
        if any(wanted):
            assert waits.wait(LIMIT), "the other one waits for this content"
            self._process.kill()
            self._process.wait()
        return decode(self, wanted)

    monkeypatch.setattr(reader.PhotoReader, "_claim", claimed)
    monkeypatch.setattr(decode_pool.DecodingProcess, "decode", dies)
    report = bench.index(processes=True)
    assert [Path(failure.path).name for failure in report.failures] == ["a.jpg", "b.jpg"]
    assert all("no memory" in failure.reason for failure in report.failures)
    assert len(started) == 3, "two, and one more for the second try"
    monkeypatch.undo()
    assert bench.index(retry_failed=True).added == 2


def test_a_process_that_is_killed_between_photos_costs_none(bench, fill, monkeypatch):
    """As the system does where memory is short; each bundle is one photo here."""
    fill(12)
    read, killed, calls = decode_pool.DecodingProcess.read, [], count()

    def killed_before(self, paths):
        if next(calls) % 4 == 2:
            killed.append(self._process)
            self._process.kill()
            self._process.wait()
        return read(self, paths)

    monkeypatch.setattr(decode_pool.DecodingProcess, "read", killed_before)
    report = bench.index(workers=1, processes=True)
    assert killed
    assert (report.added, report.failed) == (12, 0)


def test_what_ends_the_run_there_ends_it_here(bench, fill, started):
    fill(8)
    bench.library.mkdir()
    (bench.library / "thumbnails").write_bytes(b"in the way")
    with pytest.raises(StorageError, match="cannot write the thumbnail"):
        bench.index(workers=1, processes=True)
    assert started
    assert all(process.poll() is not None for process in started)
    (bench.library / "thumbnails").unlink()
    assert bench.index().added == 8
    bench.assert_mirrors_disk()


def test_threads_do_it_where_no_process_starts(bench, fill, monkeypatch, caplog):
    fill(12)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert bench.index(workers=1, processes=True).added == 12
    assert "decoded in threads" in caplog.text
    bench.assert_mirrors_disk()


def test_threads_do_it_where_prepare_does_not_pickle(bench, fill, monkeypatch, caplog, started):
    fill(12)
    opened = bench.plugin.open

    def open_with_a_closure(*arguments, **options):
        embedder = opened(*arguments, **options)
        embedder.prepare = lambda image: type(embedder).prepare(image)
        return embedder

    monkeypatch.setattr(bench.plugin, "open", open_with_a_closure)
    assert bench.index(workers=1, processes=True).added == 12
    assert started == []
    assert "decoded in threads" in caplog.text
    bench.assert_mirrors_disk()


def test_ctrl_c_at_a_terminal_is_not_theirs(bench, fill, started):
    fill(8)
    groups = set()
    bench.plugin.before_row = lambda row: groups.update(os.getpgid(process.pid) for process in started)
    bench.index(workers=1, processes=True)
    assert groups
    assert os.getpgid(0) not in groups


_PARENT = """
import sys, time
from pathlib import Path
import psutil
from tests.indexing.conftest import Bench
bench = Bench(Path(sys.argv[1]))
def told(row):
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    time.sleep(3600)
bench.plugin.before_row = told
bench.index(workers=1, processes=True)
"""


def test_a_killed_run_leaves_no_process(bench, fill):
    fill(40)
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, bench.photos.parent],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert children
    _, alive = psutil.wait_procs(children, timeout=LIMIT)
    assert alive == []
    assert bench.index().failed == 0
    bench.assert_mirrors_disk()


def test_cancelling_ends_them(bench, fill, started):
    fill(60)
    report = bench.index(workers=1, processes=True, cancelled=lambda: bench.plugin.rows >= 8)
    assert report.interrupted
    assert report.added % 4 == 0
    assert all(process.poll() is not None for process in started)
    assert bench.index().failed == 0
    bench.assert_mirrors_disk()


def test_half_a_photo_is_none(tmp_path):
    """The process is killed with the pipe full."""
    shape, dtype = (800, 800, 3), np.dtype(np.uint8)
    Image.new("RGB", (800, 800), "red").save(tmp_path / "large.png")
    decoder = PhotoDecoder(GuardedPrepare("large", np.asarray, shape, dtype), None, None)
    with closing(DecodingProcess(pickle.dumps(decoder), shape, dtype)) as process:
        process.read([os.fspath(tmp_path / "large.png")])
        process.decode([True])
        assert process._receive().width == 800, "its pixels are on their way"
        process._process.kill()
        process._process.wait()
        with pytest.raises(ProcessDied):
            process._pixels()


def test_threads_that_nobody_waits_for_start_no_more_processes(started):
    """As after Ctrl-C, and again, and again: `close` comes while they read."""
    decoder = PhotoDecoder(guard_prepare("tiny", np.asarray), None, None)
    all_of_them = DecodingProcesses(decoder, (32, 48, 3), np.dtype(np.uint8))
    all_of_them.own()
    all_of_them.close()
    with pytest.raises(ProcessDied):
        all_of_them.own()
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_no_file_handle_is_left(bench, fill):
    fill(8)
    bench.index(workers=1, processes=True)
    before = psutil.Process().num_fds()
    for _ in range(3):
        fill(4, start=8 + 4 * _)
        bench.index(workers=2, processes=True)
    assert psutil.Process().num_fds() <= before


@pytest.mark.parametrize("data", [b"no photo", None, b"damaged"])
def test_what_failed_holds_no_photo_in_memory(jpegs, tmp_path, data):
    """Thousands of them may wait for a large batch to be full."""

    def prepare(image):
        raise ZeroDivisionError

    path = tmp_path / "photo.jpg"
    whole = jpegs(0)
    path.write_bytes(whole if data is None else whole[: len(whole) // 2] if data == b"damaged" else data)
    decoder = PhotoDecoder(GuardedPrepare("odd", prepare, (1,), np.dtype(np.uint8)), None, None)
    job = Job(Stamp(os.fspath(path), 1, 0, 0))
    error = PhotoReader(lambda digests: {}, decoder)([job])[0].error
    assert isinstance(error, PluginBroken if data is None else PhotoError)
    frames = []
    while error is not None:
        frames += [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    assert frames
    assert [frame.f_locals for frame in frames if frame.f_locals] == []


def test_bundles_keep_the_order_and_to_the_limits():
    jobs = [Job(Stamp(f"{number}", size, 0, 0)) for number, size in enumerate([3, 3, 3, 99, 1, 1, 1, 1, 1])]
    found = [[job.stamp.size for job in bundle] for bundle in bundles(jobs, 4, 8)]
    assert found == [[3, 3], [3], [99], [1, 1, 1, 1], [1]]
    assert list(bundles([], 4)) == []
