"""The benchmark of photos in a bucket, on few."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.object_storage import measure
from tests.helpers.object_store import OWNER, ObjectStore
from vitmae_search.photos.file_system import opened_storage


def test_on_few_photos(
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in object_store.environment(OWNER).items():
        monkeypatch.setenv(name, value)
    opened_storage.cache_clear()
    measure(object_store, 12, tmp_path)
    opened_storage.cache_clear()
    rows = [line.split("|")[1:4:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [[" listing ", " 12 "], [" first run ", " 12 "], [" unchanged ", " 12 "]]
