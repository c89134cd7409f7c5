"""Temporary files of killed writers are swept, and only theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vitmae_search import atomic
from vitmae_search.atomic import sweep, temporary_beside, write_atomically
from vitmae_search.training.run_folder import replace_files

_WRITE_FOR_EVER = """
import sys, time
from pathlib import Path
from vitmae_search.atomic import write_atomically
with write_atomically(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def make_old(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)


def test_a_killed_writers_file_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    writer = start_writer(tmp_path / "file")
    (left,) = tmp_path.iterdir()
    make_old(tmp_path)
    sweep(tmp_path)
    assert left.exists()  # it is being written, however slowly
    writer.kill()
    writer.wait()
    assert writer.stdout is not None
    writer.stdout.close()
    atomic._swept.discard(tmp_path)
    with write_atomically(tmp_path / "other") as stream:
        stream.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_is_not_ours_or_is_new_stays(tmp_path: Path) -> None:
    names = [".file.tmp", "file.0123456789abcdef.tmp", ".file.0123456789abcdeX.tmp", ".file.123.tmp", "a.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".folder.0123456789abcdef.tmp").mkdir()
    (tmp_path / ".link.0123456789abcdef.tmp").symlink_to(tmp_path / "a.tmp")
    make_old(tmp_path)
    new = temporary_beside(tmp_path / "file")
    new.write_bytes(b"")
    before = set(tmp_path.iterdir())
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == before
    sweep(tmp_path / "no such folder")


def test_a_killed_runs_unfinished_folder_goes(tmp_path: Path) -> None:
    (tmp_path / ".saving-abc").mkdir()
    (tmp_path / ".saving-abc" / "model.safetensors").write_bytes(b"half")
    with replace_files(tmp_path) as folder:
        (folder / "file").write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
