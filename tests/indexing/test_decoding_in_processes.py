"""Decoding in processes: what happens to one costs a photo at most, and none is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from vitmae_search.embedding import GuardedPrepare
from vitmae_search.embedding.guard_prepare import guard_prepare
from vitmae_search.errors import PhotoError, PluginBroken
from vitmae_search.indexing import index_folders, reader
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import PhotoReader, group_files
from vitmae_search.library import Library
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode, decode_pool, digest
from vitmae_search.photos.decode_pool import DecodePool
from vitmae_search.photos.decode_worker import DecodeHandler, PlainImage
from vitmae_search.photos.fork_server import FORK_SERVER
from vitmae_search.photos.worker_process import WorkerDied, WorkerProcess
from vitmae_search.records import Stamp

LIMIT = 30

PLUGIN = """
import os
import numpy as np
from PIL import Image
from vitmae_search.embedding import Embedder, EmbedderPlugin, PluginInfo
HOST = os.environ["TEST_HOST"]
def prepare(image):
    print("printed by the plugin")
    pixels = np.asarray(image.resize((4, 4), Image.Resampling.BOX))
    if os.environ.get("TEST_CRASH") == str(image.size) and str(os.getpid()) != HOST:
        os._exit(1)
    return pixels
class CrashingEmbedder(Embedder):
    model, dimension, input_size, identity, provenance = "crashing", 48, 8, {}, {}
    prepare = staticmethod(prepare)
    def embed(self, batch):
        rows = batch.reshape(len(batch), -1).astype(np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
    def close(self): pass
class Plugin(EmbedderPlugin):
    info = PluginInfo(name="crashing", title="Crashing")
    def open(self, options, *, device, precision): return CrashingEmbedder()
plugin = Plugin()
"""


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found = []

    class Counted(decode_pool.WorkerProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            found.append(self._process)

    monkeypatch.setattr(decode_pool, "WorkerProcess", Counted)
    return found


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """`crashing(folder)`: index with a plugin that prints, and crashes at images of size `TEST_CRASH`."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "crashing.py").write_text(PLUGIN)
    monkeypatch.setenv("TEST_HOST", str(os.getpid()))

    def index(folder):
        FORK_SERVER.close()  # the next one has the environment as it is now

        def with_one_worker(*arguments, **options):
            return index_folders(*arguments, **{**options, "workers": 1})

        with monkeypatch.context() as patch:
            patch.setattr("vitmae_search.indexing.index_folders", with_one_worker)
            with Library.open(
                tmp_path / "crashing", embedder="crashing", plugin_folders=[tmp_path / "plugins"]
            ) as library:
                report = library.index(folder)
                return report, {photo.path for photo in library.photos()}

    return index


def test_processes_make_the_library_that_this_one_would(bench, fill, jpegs, started):
    fill(40)
    for number in range(12):
        (bench.photos / f"copy{number}.jpg").write_bytes(jpegs(number * 3))
        (bench.photos / f"bad{number}.jpg").write_bytes(jpegs(number)[: 200 + number])
    (bench.photos / os.fsdecode(b"caf\xe9 \n.jpg")).write_bytes(jpegs(99))
    report = bench.index()
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)
    assert (report.added, report.failed) == (53, 12)
    assert bench.embedded == 41, "each content once"
    bench.assert_mirrors_disk()
    assert ThumbnailStore(bench.library / "thumbnails").get(digest(jpegs(0)))
    with bench.catalog() as catalog:
        metadata = {photo.path: photo.metadata for photo in catalog.photos()}
    assert metadata[os.fspath(bench.photos / "copy0.jpg")] == decode(jpegs(0)).metadata
    assert bench.index().unchanged == 53


def test_a_crash_is_one_photos_failure(crashing, jpegs, tmp_path, monkeypatch):
    """Nor do the files beside it, or their copies, suffer."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.jpg").write_bytes(jpegs(number % 20))
    Image.new("RGB", (77, 33)).save(folder / "05 crash.png")
    monkeypatch.setenv("TEST_CRASH", "(77, 33)")
    report, paths = crashing(folder)
    assert (report.added, report.failed) == (30, 1)
    assert report.failures[0].path.endswith("05 crash.png")
    assert "a crash, or no memory" in report.failures[0].reason
    assert len(paths) == 30


def test_a_copy_of_a_photo_at_which_its_process_dies_fails_as_well(bench, jpegs, started, monkeypatch):
    """Though others have taken its content for one that is still to come."""
    for name in ("a.jpg", "b.jpg"):
        (bench.photos / name).write_bytes(jpegs(0))
    first_to_read, call = reader.PhotoReader._first_to_read, decode_pool.WorkerProcess.call
    waits = threading.Event()

    def first_or_waits(self, name, names):
        first = first_to_read(self, name, names)
        return first or bool(waits.set())

    def dies(self, method, arguments):
        if method == "decode" and any(arguments):
            assert waits.wait(LIMIT), "the other one waits for this content"
            self._process.kill()
            self._process.wait()
        return call(self, method, arguments)

    monkeypatch.setattr(reader.PhotoReader, "_first_to_read", first_or_waits)
    monkeypatch.setattr(decode_pool.WorkerProcess, "call", dies)
    report = bench.index()
    assert [Path(failure.path).name for failure in report.failures] == ["a.jpg", "b.jpg"]
    assert all("no memory" in failure.reason for failure in report.failures)
    assert len(started) == 3, "two, and one more for the second try"
    monkeypatch.undo()
    assert bench.index(retry_failed=True).added == 2


def test_a_process_that_is_killed_between_photos_costs_none(bench, fill, monkeypatch):
    """As the system does where memory is short; each group is one photo here."""
    fill(12)
    call, killed, calls = decode_pool.WorkerProcess.call, [], count()

    def killed_before(self, method, arguments):
        if method == "read" and next(calls) % 4 == 2:
            killed.append(self._process)
            self._process.kill()
            self._process.wait()
        return call(self, method, arguments)

    monkeypatch.setattr(decode_pool.WorkerProcess, "call", killed_before)
    report = bench.index(workers=1)
    assert killed
    assert (report.added, report.failed) == (12, 0)


def test_a_thumbnail_that_cannot_be_written_ends_no_run(bench, fill):
    fill(8)
    bench.library.mkdir()
    (bench.library / "thumbnails").write_bytes(b"in the way")
    report = bench.index(workers=1)
    assert (report.added, report.failed) == (8, 0)


def test_threads_do_it_where_no_process_starts(bench, fill, monkeypatch, caplog):
    fill(12)
    FORK_SERVER.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert bench.index(workers=1).added == 12
    assert "decoded in threads" in caplog.text
    bench.assert_mirrors_disk()


def test_what_cannot_be_pickled_is_decoded_in_processes_and_prepared_here(bench, fill, monkeypatch, started):
    fill(12)
    opened = bench.plugin.open
    profiles = []

    def open_with_a_closure(*arguments, **options):
        embedder = opened(*arguments, **options)

        def prepare(image):
            profiles.append(image.info)
            return type(embedder).prepare(image)

        embedder.prepare = prepare
        return embedder

    monkeypatch.setattr(bench.plugin, "open", open_with_a_closure)
    assert bench.index(workers=1).added == 12
    assert len(started) == 1
    assert profiles
    bench.assert_mirrors_disk()


def test_an_image_keeps_its_profile_on_the_way():
    image = Image.new("RGB", (5, 3), "red")
    image.info = {"icc_profile": b"wide"}
    again = pickle.loads(pickle.dumps(PlainImage.of(image))).image()
    assert (again.size, again.info) == (image.size, image.info)
    assert again.tobytes() == image.tobytes()


def test_ctrl_c_at_a_terminal_is_not_theirs(bench, fill, started):
    fill(8)
    groups = set()
    bench.plugin.before_row = lambda row: groups.update(os.getpgid(process.pid) for process in started)
    bench.index(workers=1)
    assert groups
    assert os.getpgid(0) not in groups


_PARENT = """
import sys, time
from pathlib import Path
import psutil
from tests.indexing.conftest import Bench
bench = Bench(Path(sys.argv[1]))
def print_children(row):
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    time.sleep(3600)
bench.plugin.before_row = print_children
bench.index(workers=1)
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
    report = bench.index(workers=1, cancelled=lambda: bench.plugin.rows >= 8)
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
    with closing(WorkerProcess(pickle.dumps(partial(DecodeHandler, decoder)))) as worker:
        worker.call("read", [os.fspath(tmp_path / "large.png")])
        worker._send(pickle.dumps(("decode", ([True],))))
        assert worker._answers.peek(1), "its pixels are on their way"
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerDied):
            worker._receive([])


def test_threads_that_nobody_waits_for_start_no_more_processes(started):
    """As after Ctrl-C, and again, and again: `close` comes while they read."""
    decoder = PhotoDecoder(guard_prepare("tiny", np.asarray), None, None)
    pool = DecodePool(partial(DecodeHandler, decoder))
    pool.worker()
    pool.close()
    with pytest.raises(WorkerDied):
        pool.worker()
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_no_file_handle_is_left(bench, fill):
    fill(8)
    bench.index(workers=1)
    before = psutil.Process().num_fds()
    for _ in range(3):
        fill(4, start=8 + 4 * _)
        bench.index(workers=2)
    assert psutil.Process().num_fds() <= before


@pytest.mark.parametrize("data", [b"no photo", None, b"damaged"])
def test_what_failed_holds_no_photo_in_memory(jpegs, tmp_path, data):
    """Thousands of them may wait for a large batch to be full."""

    def prepare(image):
        raise ZeroDivisionError

    path = tmp_path / "photo.jpg"
    whole = jpegs(0)
    path.write_bytes(whole if data is None else whole[: len(whole) // 2] if data == b"damaged" else data)
    decoder = PhotoDecoder(GuardedPrepare("crashing", prepare, (1,), np.dtype(np.uint8)), None, None)
    file = PendingFile(Stamp(os.fspath(path), 1, 0, 0))
    pool = DecodePool(lambda: DecodeHandler(decoder))
    error = PhotoReader(lambda digests: {}, pool, None)([file])[0].error
    assert isinstance(error, PluginBroken if data is None else PhotoError)
    frames = []
    while error is not None:
        frames += [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    assert frames
    assert [frame.f_locals for frame in frames if frame.f_locals] == []


def test_groups_keep_the_order_and_to_the_limits():
    sizes = [3, 3, 3, 99, 1, 1, 1, 1, 1]
    files = [PendingFile(Stamp(f"{number}", size, 0, 0)) for number, size in enumerate(sizes)]
    found = [[file.stamp.size for file in group] for group in group_files(files, 4, 8)]
    assert found == [[3, 3], [3], [99], [1, 1, 1, 1], [1]]
    assert list(group_files([], 4)) == []
