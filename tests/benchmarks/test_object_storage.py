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
    rows = [
        [cell.strip() for cell in line.split("|")[1:5]] for line in capsys.readouterr().out.splitlines()[2:]
    ]
    found = {name: (int(photos), int(requests)) for name, _, photos, requests in rows}
    assert found["bucket: listing"] == (12, 2)
    for place in ("bucket", "disk"):
        assert found[f"{place}: listing"][0] == found[f"{place}: unchanged"][0] == 12
        assert found[f"{place}: killed in mid-run"][0] + found[f"{place}: resumed"][0] == 12
    assert found["bucket: unchanged"][1] <= 4
    assert found["disk: unchanged"][1] == 0
