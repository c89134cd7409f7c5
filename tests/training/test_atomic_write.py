"""Files and folders of a run are replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitmae_search.atomic import write_atomically
from vitmae_search.training.run_folder import replace_files


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with write_atomically(path) as stream:
            stream.write(b"new and cut sho")
            raise OSError("disk full")

    def fail_in_folder() -> None:
        with replace_files(tmp_path) as folder:
            (folder / "file").write_bytes(b"new")
            raise OSError("disk full")

    for fail in (fail_half_way, fail_in_folder):
        with pytest.raises(OSError, match="full"):
            fail()
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    with replace_files(tmp_path) as folder:
        (folder / "file").write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
