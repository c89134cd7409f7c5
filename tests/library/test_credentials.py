"""Passwords and tokens in addresses reach no error, log, page or catalogue."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.cli.main import run
from vitmae_search.errors import ModelNotFound, PhotoError, VitmaeSearchError, mask_credentials
from vitmae_search.hub import HubOptions, hub_file
from vitmae_search.indexing.job import run_job
from vitmae_search.library import Library
from vitmae_search.web.server import app

SECRET = "Sw0rdf1sh"
ADDRESSES = {
    f"https://user:{SECRET}@huggingface.co/a/b": "https://***@huggingface.co/a/b",
    f"https://{SECRET}@host/a": "https://***@host/a",
    "postgresql://USER@HOST/DATABASE": "postgresql://USER@HOST/DATABASE",  # an example
    f"postgresql://user@{SECRET}@host/a": "postgresql://***@host/a",
    f"https://user:p@{SECRET}@host/a": "https://***@host/a",
    f"s3://AKIA12:a/b+{SECRET}@bucket/folder": "s3://***@bucket/folder",
    f"s3:/key:{SECRET}@bucket": "s3:/***@bucket",  # as a path shows it
    f"https://host/a?x=1&token={SECRET}&y=2": "https://host/a?x=1&token=***&y=2",
    f"https://host/a?X-Amz-Signature={SECRET}&X-Amz-Date=1": "https://host/a?X-Amz-Signature=***&X-Amz-Date=***",
    f"https://host/a?sig={SECRET}#access_token={SECRET}": "https://host/a?sig=***#access_token=***",
    f"Authorization: Bearer {SECRET}.abc.def": "Authorization: Bearer ***",
    f"token hf_{SECRET * 4} of mine": "token hf_*** of mine",
}


@pytest.mark.parametrize(("text", "shown"), ADDRESSES.items())
def test_what_gives_access_is_masked(text: str, shown: str) -> None:
    assert mask_credentials(text) == shown
    assert mask_credentials(shown) == shown
    error = VitmaeSearchError(f"{text!r} cannot be reached")
    assert SECRET not in str(error)
    assert SECRET not in str(pickle.loads(pickle.dumps(error)))
    assert SECRET not in str(PhotoError(None, text))


@pytest.mark.parametrize(
    "text",
    [
        "/photos/a@b/c:d@e.jpg",
        "me@example.org",
        "https://example.org/a@b?size=3&tokens=4",
        "http://127.0.0.1:8501/photos",
        "C:/photos/holiday.jpg",
        "no token: here",
        "a basic sentence about bearer things",
        "10:30:05 12/11",
    ],
)
def test_what_gives_none_is_shown(text: str) -> None:
    assert mask_credentials(text) == text


@pytest.mark.parametrize(
    "command",
    [
        ["index", "PHOTOS", "--model", "ADDRESS"],
        ["index", "ADDRESS"],
        ["index", "PHOTOS", "--library", "ADDRESS"],
        ["index", "PHOTOS", "-o", "model=ADDRESS"],
        ["search", "ADDRESS"],
        ["search", "PHOTOS", "--under", "ADDRESS"],
        ["reconstruct", "ADDRESS", "--model", "ADDRESS"],
        ["status", "--library", "ADDRESS"],
        ["evaluate", "PHOTOS", "--model", "ADDRESS"],
        ["classify", "--model", "ADDRESS"],
        ["adapt", "PHOTOS", "--model", "ADDRESS"],
        ["pretrain", "PHOTOS", "--init", "ADDRESS", "-o", "run"],
        ["spaces", "use", "ADDRESS"],
        ["ADDRESS"],
        ["app", "--address", "ADDRESS"],
    ],
)
def test_no_command_shows_them(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    address = f"https://user:{SECRET}@host/a?token={SECRET}"
    given = [{"PHOTOS": str(tmp_path / "photos"), "ADDRESS": address}.get(word, word) for word in command]
    assert run([word.replace("model=ADDRESS", f"model={address}") for word in given]) != 0
    assert SECRET not in "".join(capfd.readouterr())
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not kept
    assert not [path for path in tmp_path.rglob("*") if SECRET in path.name]


def test_the_hubs_own_address_may_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    address = f"http://user:{SECRET}@127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(ModelNotFound, match=r"http://\*\*\*@127.0.0.1:9 cannot be reached"):
        hub_file("a/b", "config.json", "config.json", options=HubOptions())
    # The hub's client logs addresses that it retries.
    record = logging.LogRecord("huggingface_hub.utils", logging.ERROR, "", 1, "retry %s", (address,), None)
    handlers = logging.getLogger("huggingface_hub").handlers
    assert handlers
    assert all(handler.filter(record) for handler in handlers)
    assert record.getMessage() == "retry http://***@127.0.0.1:9"


def test_the_rows_of_jobs_hold_none(tmp_path: Path) -> None:
    address = f"https://user:{SECRET}@host/a"

    def fail(cancelled: Callable[[], bool]) -> NoReturn:
        raise ConnectionError(f"{address} did not answer")

    with CatalogWriter.open_writer(tmp_path / "library") as writer, pytest.raises(ConnectionError):
        run_job(writer, "a" * 32, "index", {"folders": [address], "model": address, "top": 5}, fail)
    with Library.open(tmp_path / "library") as library:
        (row,) = library.jobs()
    assert row.arguments == {"folders": ["https://***@host/a"], "model": "https://***@host/a", "top": 5}
    assert "https://***@host/a did not answer" in str(row.error)
    held = b"".join(path.read_bytes() for path in (tmp_path / "library").rglob("*") if path.is_file())
    assert SECRET.encode() not in held


def test_a_failed_pages_log_holds_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.plain_text, "unexpected_error", lambda: None)
    try:
        raise ValueError(f"https://user:{SECRET}@host") from ConnectionError(f"https://h?token={SECRET}")
    except ValueError as error:
        app.on_script_error(error)
    assert "https://***@host" in caplog.text
    assert SECRET not in caplog.text
