"""The registry of training runs: order, concurrent writers, and damage."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitmae_search.settings import settings
from vitmae_search.training import pretrain
from vitmae_search.training_runs import list_training_runs, remember_run
from vitmae_search.training_runs.registry import REGISTRY_NAME


@pytest.fixture
def registry() -> Path:
    return settings().data / REGISTRY_NAME


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_runs_come_back_the_newest_first_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_training_runs() == []
    first, second = folder(tmp_path / "first"), folder(tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    for path in (first, "second", Path("first")):
        remember_run(path)
    assert list_training_runs() == [first, second]


def test_a_run_that_is_gone_is_left_out_and_comes_back_with_its_drive(tmp_path: Path) -> None:
    away, here = folder(tmp_path / "away"), folder(tmp_path / "here")
    remember_run(away)
    away.rename(tmp_path / "elsewhere")
    remember_run(here)
    assert list_training_runs() == [here]
    (tmp_path / "elsewhere").rename(away)
    assert list_training_runs() == [here, away]


def test_a_name_that_is_not_text_is_remembered(tmp_path: Path) -> None:
    odd = folder(tmp_path / os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x88 'q\"\n"))
    remember_run(odd)
    assert list_training_runs() == [odd]


def test_runs_that_begin_at_once_are_all_remembered(tmp_path: Path) -> None:
    folders = [folder(tmp_path / str(i)) for i in range(24)]
    code = (
        "import sys; from vitmae_search.training_runs import remember_run; "
        "[remember_run(p) for p in sys.argv[1:]]"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, *map(str, folders[i::3])]) for i in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert sorted(list_training_runs()) == sorted(folders)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"runs": 3}', b'{"runs": [1, null, "not absolute"]}', b"\xff"]
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, registry: Path, damage: bytes) -> None:
    registry.parent.mkdir()
    registry.write_bytes(damage)
    assert list_training_runs() == []
    run = folder(tmp_path / "run")
    remember_run(run)
    assert list_training_runs() == [run]


def test_a_failed_registration_is_a_warning(
    tmp_path: Path, registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        remember_run(folder(tmp_path / "run"))
    assert "will not be listed" in caplog.text
    assert list_training_runs() == []


def test_nothing_half_written_is_left_when_the_disk_refuses(
    tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path / "run")
    remember_run(run)
    before = registry.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    remember_run(folder(tmp_path / "other"))
    assert registry.read_bytes() == before
    assert {path.name for path in registry.parent.iterdir()} <= {REGISTRY_NAME, f"{REGISTRY_NAME}.lock"}


def test_a_training_is_remembered_when_it_begins(tmp_path: Path, real_photos: dict[str, Path]) -> None:
    photos, output = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    (photos / "cat.png").write_bytes(real_photos["chelsea"].read_bytes())
    pretrain(photos, output, stop=lambda: list_training_runs() == [output])
    assert list_training_runs() == [output]
