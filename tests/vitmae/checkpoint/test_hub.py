"""Hub ids: files come from the cache first, and an error of one sentence where there is no network."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from vitmae_search.errors import ConfigError, ModelNotFound
from vitmae_search.vitmae import (
    AutoImageProcessor,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    find_checkpoint,
)
from vitmae_search.vitmae.checkpoint.locate import find_config, find_preprocessor

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


def test_no_network_is_an_error_within_seconds(
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
def test_a_name_that_is_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ModelNotFound, match="neither a file, a folder nor a hub id"):
        find_checkpoint(name)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that downloads need, serving a folder."""

    folder: Path
    tokens: set[str | None]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.folder / self.path.split("/resolve/main/")[-1].strip("/")
        self.tokens.add(self.headers["Authorization"])
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
def hub_server(tmp_path: Path, endpoint: Callable[[str], None]) -> Iterator[type[Hub]]:
    folder = tmp_path / "on-the-hub"
    folder.mkdir()
    handler = type("FolderHub", (Hub,), {"folder": folder, "tokens": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint(f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hub(hub_server: type[Hub]) -> Path:
    return hub_server.folder


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


def test_a_cache_of_its_own(hub: Path, empty_cache: Path, tmp_path: Path) -> None:
    ViTMAEConfig(mask_ratio=0.6).save_pretrained(hub)
    found = find_config(MODEL, cache_dir=tmp_path / "elsewhere")
    assert found.is_relative_to(tmp_path / "elsewhere")
    assert not empty_cache.exists()
    (hub / "config.json").unlink()
    assert find_config(MODEL, cache_dir=tmp_path / "elsewhere", local_files_only=True) == found
    with pytest.raises(ModelNotFound, match="not in the local cache"):
        find_config(MODEL, local_files_only=True)


def test_a_token_is_sent_to_the_hub(hub_server: type[Hub]) -> None:
    ViTMAEConfig().save_pretrained(hub_server.folder)
    find_config(MODEL, token="hf_secret")
    assert "Bearer hf_secret" in hub_server.tokens
    hub_server.tokens.clear()
    find_config(MODEL, token=False, force_download=True)
    assert hub_server.tokens == {None}


def test_a_download_is_forced(
    hub: Path, endpoint: Callable[[str], None], closed_port: int, random_model: Callable[..., Any]
) -> None:
    random_model(mask_ratio=0.6).save_pretrained(hub)
    cached = find_checkpoint(MODEL).config
    assert cached is not None
    whole = cached.read_bytes()
    cached.write_bytes(whole[:9])
    assert find_checkpoint(MODEL).config == cached
    assert cached.read_bytes() == whole[:9]
    assert find_checkpoint(MODEL, force_download=True).config == cached
    assert cached.read_bytes() == whole
    with pytest.raises(ConfigError, match="force_download=True: needs the network"):
        find_checkpoint(MODEL, force_download=True, local_files_only=True)
    endpoint(f"http://127.0.0.1:{closed_port}")
    for find in (find_checkpoint, find_config, find_preprocessor):
        with pytest.raises(ModelNotFound, match=r"is to be downloaded again and http.* cannot be reached"):
            find(MODEL, force_download=True)


def test_a_subfolder_of_the_repository_or_of_a_folder(
    hub: Path, random_model: Callable[..., Any], tmp_path: Path
) -> None:
    random_model().save_pretrained(hub / "large/v2", max_shard_size="20KB")
    ViTImageProcessor(size=32).save_pretrained(hub / "large/v2")
    with pytest.raises(ModelNotFound, match=r"in small, has no config\.json"):
        find_checkpoint(MODEL, subfolder="small")
    for place in (MODEL, hub):
        files = find_checkpoint(place, subfolder="large/v2")
        assert files.weights.name == "model.safetensors.index.json"
        assert find_config(place, subfolder="large/v2") == files.config
        assert find_preprocessor(place, subfolder="large/v2") == files.preprocessor
        assert len(files.digest()) == 64
    assert find_checkpoint(MODEL, subfolder="large/v2", local_files_only=True).preprocessor
    with pytest.raises(ModelNotFound, match="small: no such folder"):
        find_checkpoint(hub, subfolder="small")
    (hub / "small").mkdir()
    with pytest.raises(ModelNotFound, match=r"small has no config\.json"):
        find_config(hub, subfolder="small")


def test_the_kind_of_weights_can_be_chosen(hub: Path, random_model: Callable[..., Any]) -> None:
    model = random_model()
    model.save_pretrained(hub)
    torch.save(model.state_dict(), hub / "pytorch_model.bin")
    for place in (MODEL, hub):
        names = {k: find_checkpoint(place, use_safetensors=k).weights.name for k in (None, True, False)}
        assert names == {None: "model.safetensors", True: "model.safetensors", False: "pytorch_model.bin"}
    (hub / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"has no weights file; model\.safetensors is what is looked for"):
        find_checkpoint(hub, use_safetensors=True)
    with pytest.raises(ModelNotFound, match="is no safetensors file, and use_safetensors is True"):
        find_checkpoint(hub / "pytorch_model.bin", use_safetensors=True)


def test_what_is_missing_is_an_os_error_as_in_the_reference(tmp_path: Path) -> None:
    for place in (MODEL, tmp_path, tmp_path / "gone"):
        for load in (
            ViTMAEForPreTraining.from_pretrained,
            ViTMAEConfig.from_pretrained,
            ViTImageProcessor.from_pretrained,
        ):
            with pytest.raises(OSError, match=r"cache|no such|has no") as caught:
                load(place, local_files_only=True)  # type: ignore[operator]
            assert isinstance(caught.value, ModelNotFound)
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
