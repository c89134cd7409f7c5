"""The app on each device: a search in the page, the memory that it gives back when idle, the next search."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from vitmae_search.library import Library
from vitmae_search.web.server import lifespan, session
from vitmae_search.web.server.app import MAIN_SCRIPT

WORKSPACES = 256 << 20
"""What cuBLAS may keep for itself, on an H100 32 MB for each thread and stream, or twice that."""


@pytest.fixture
def app(device: str, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """The app's own library, on the device."""
    shutil.copytree(reference, tmp_path / "library")
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("VITMAE_SEARCH_DEVICE", device)
    yield session.library()
    session.close_libraries()


def said(name: str, real_photos: dict[str, Path]) -> str:
    """What the Search page says to a picture that is in no library."""
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=120)
    at.query_params["upload"] = session.uploads.add(f"{name}.png", real_photos[name].read_bytes())
    at.run()
    assert not at.exception, at.exception
    return unescape(" ".join(str(block.proto.body) for block in at.get("html")))


def on_device(device: str) -> int:
    """Bytes that torch holds there."""
    return torch.cuda.memory_reserved() if device == "cuda" else 0


def test_the_model_is_loaded_for_a_search_and_offloaded_when_idle(
    device: str, app: Library, real_photos: dict[str, Path]
) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()  # of what other tests left
    before = on_device(device)
    assert "a fingerprint made just now" in said("chelsea", real_photos)
    (embedder,) = app._embedders._open.values()
    assert embedder.provenance["device"] == (torch.cuda.get_device_name() if device == "cuda" else device)
    batch = embedder.prepare.shape
    embedder.embed(torch.zeros(1024 if device == "cuda" else 4, *batch, dtype=torch.uint8).numpy())
    used = on_device(device)
    assert used > before or device == "cpu"
    stopped = threading.Event()
    idle = threading.Thread(target=lifespan.offload_when_idle, args=(0.2, stopped))
    idle.start()
    try:
        deadline = time.monotonic() + 60
        while not embedder.offloaded:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        stopped.set()
        idle.join()
    left = on_device(device)
    print(f"on {device}: {before >> 20} MB before, {used >> 20} in use, {left >> 20} at rest")
    assert left <= before + WORKSPACES
    assert left < used or device == "cpu"
    assert "a fingerprint made just now" in said("coffee", real_photos)
    assert not embedder.offloaded
