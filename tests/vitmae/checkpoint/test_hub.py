"""Hub ids: the cache first, and one sentence where there is no network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from vitmae_search.errors import ModelNotFound
from vitmae_search.vitmae import (
    AutoImageProcessor,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    find_checkpoint,
)

MODEL = "someone/small-vit-mae"
COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's client reads its environment when it is imported, so its constants are what we set."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def point(url: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )

    return point


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_no_network_is_one_sentence_and_soon(
    closed_port: int, silent_port: int, endpoint: Callable[[str], None]
) -> None:
    for url in (f"http://127.0.0.1:{closed_port}", f"http://127.0.0.1:{silent_port}"):
        endpoint(url)
        start = time.monotonic()
        message = f"{MODEL} is not in the local cache and {url} cannot be reached"
        with pytest.raises(ModelNotFound, match=message):
            find_checkpoint(MODEL)
        assert time.monotonic() - start < 10  # 2 s on an idle machine, and 23 with the client's own retries


def test_a_cached_model_needs_no_network(
    random_model: Callable[..., ViTMAEForPreTraining],
    empty_cache: Path,
    closed_port: int,
    endpoint: Callable[[str], None],
) -> None:
    endpoint(f"http://127.0.0.1:{closed_port}")
    repository = empty_cache / f"models--{MODEL.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    model = random_model()
    model.save_pretrained(repository / "snapshots" / COMMIT)
    with pytest.raises(ModelNotFound, match="has no preprocessor_config"):
        ViTImageProcessor.from_pretrained(MODEL)
    ViTImageProcessor(size=32).save_pretrained(repository / "snapshots" / COMMIT)
    loaded = ViTMAEForPreTraining.from_pretrained(MODEL, local_files_only=True)
    assert loaded.state_dict()["vit.layernorm.weight"].equal(model.state_dict()["vit.layernorm.weight"])
    assert ViTImageProcessor.from_pretrained(MODEL).height_width == (32, 32)


def test_downloads_can_be_switched_off() -> None:
    with pytest.raises(ModelNotFound, match="downloads are switched off"):
        find_checkpoint(MODEL, local_files_only=True)


@pytest.mark.parametrize("name", ["no spaces", "a--b/c..d", "-x"])
def test_what_is_no_hub_id_is_said(name: str) -> None:
    with pytest.raises(ModelNotFound, match="neither a file, a folder nor a hub id"):
        find_checkpoint(name)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for, over a folder."""

    folder: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.folder / self.path.rsplit("/", 1)[-1]
        known = self.path.startswith(f"/{MODEL}/")
        content = path.read_bytes() if known and path.is_file() else b""
        self.send_response(200 if content else 404)
        if not content:
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{path.name}-1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, endpoint: Callable[[str], None]) -> Iterator[Path]:
    folder = tmp_path / "on-the-hub"
    folder.mkdir()
    handler = type("FolderHub", (Hub,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint(f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_is_kept(random_model: Callable[..., ViTMAEForPreTraining], hub: Path) -> None:
    model = random_model()
    model.save_pretrained(hub)
    ViTImageProcessor(size=32).save_pretrained(hub)
    loaded = ViTMAEForPreTraining.from_pretrained(MODEL)
    assert loaded.state_dict()["vit.layernorm.weight"].equal(model.state_dict()["vit.layernorm.weight"])
    for path in hub.iterdir():
        path.unlink()
    assert find_checkpoint(MODEL, local_files_only=True).preprocessor is not None


def test_a_model_that_the_hub_does_not_have(hub: Path) -> None:
    with pytest.raises(ModelNotFound, match="the hub has no model someone/else"):
        find_checkpoint("someone/else")


def test_a_model_without_weights_that_can_be_read(hub: Path) -> None:
    (hub / "config.json").write_text("{}")
    with pytest.raises(ModelNotFound, match=r"has no config\.json with model\.safetensors"):
        find_checkpoint(MODEL)


def test_shards_are_downloaded_with_their_index(
    random_model: Callable[..., ViTMAEForPreTraining], hub: Path
) -> None:
    model = random_model()
    model.save_pretrained(hub, max_shard_size="20KB")
    loaded = ViTMAEForPreTraining.from_pretrained(MODEL)
    assert loaded.state_dict()["vit.layernorm.weight"].equal(model.state_dict()["vit.layernorm.weight"])
    assert find_checkpoint(MODEL, local_files_only=True).weights.name == "model.safetensors.index.json"


def test_a_missing_shard_is_named(random_model: Callable[..., ViTMAEForPreTraining], hub: Path) -> None:
    random_model().save_pretrained(hub, max_shard_size="20KB")
    next(hub.glob("model-00003-*")).unlink()
    with pytest.raises(ModelNotFound, match=r"lacks model-00003-of-\d+\.safetensors, which its index names"):
        find_checkpoint(MODEL)


def test_a_processor_and_a_configuration_need_no_weights(hub: Path, empty_cache: Path) -> None:
    ViTMAEConfig(mask_ratio=0.6).save_pretrained(hub)
    with pytest.raises(ModelNotFound, match="has no preprocessor_config"):
        AutoImageProcessor.from_pretrained(MODEL)
    ViTImageProcessor(size=32).save_pretrained(hub)
    assert AutoImageProcessor.from_pretrained(MODEL).height_width == (32, 32)
    assert ViTMAEConfig.from_pretrained(MODEL).mask_ratio == 0.6
    assert not [path for path in empty_cache.rglob("*") if "model.safetensors" in path.name]
