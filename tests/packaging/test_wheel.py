"""The wheel in a fresh environment, used from an empty folder, without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def run_installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run Python, or the command, of a fresh environment that has the wheel. Its dependencies are borrowed
    from this one: a .pth file puts them after its own packages."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=True, symlinks=True)
    binaries = home / "venv" / "bin"
    install = [binaries / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    (site / "zz-borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", "utf-8")
    empty = home / "empty"
    empty.mkdir()

    def run(program: str, *arguments: str) -> str:
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "VITMAE_SEARCH_LIBRARY": str(home / "library")}
        done = subprocess.run(
            [binaries / program, *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_carries_plugins_models_and_the_app(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "vitmae_search/_bundled/app.py",
        "vitmae_search/_bundled/.streamlit/config.toml",
        "vitmae_search/_bundled/plugins/vitmae/__init__.py",
        "vitmae_search/_bundled/plugins/color_layout/__init__.py",
        "vitmae_search/_bundled/data/samples.json",
        "vitmae_search/_bundled/data/models/vitmae-tiny-patch8-64/model.safetensors",
        "vitmae_search/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert not [name for name in names if "__pycache__" in name]


def test_the_installed_package_is_the_wheels(run_installed: Callable[..., str]) -> None:
    where = run_installed("python", "-c", "import vitmae_search; print(vitmae_search.__file__)")
    assert "/installed" in where


def test_installed_plugins_and_models_are_found(run_installed: Callable[..., str]) -> None:
    plugins = json.loads(run_installed("vitmae-search", "plugins", "--json"))["plugins"]
    assert {"vitmae", "color_layout"} <= {plugin["name"] for plugin in plugins if plugin["error"] is None}
    models = json.loads(run_installed("vitmae-search", "models", "--json"))["models"]
    assert "vitmae-tiny-patch8-64" in {model["name"] for model in models if model["source"] == "bundled"}


def test_installed_it_indexes_and_searches(
    run_installed: Callable[..., str], tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    photos = [write_photo(tmp_path / "photos" / f"{seed}.jpg", seed) for seed in range(6)]
    report = json.loads(run_installed("vitmae-search", "index", str(tmp_path / "photos"), "--json"))
    assert (report["found"], report["added"], report["failed"]) == (6, 6, 0)
    found = json.loads(run_installed("vitmae-search", "search", str(photos[3]), "--json"))
    assert found["hits"][0]["path"] == str(photos[3])
    assert found["hits"][0]["score"] >= 0.999


def test_installed_it_shows_a_page(run_installed: Callable[..., str]) -> None:
    code = """
from streamlit.testing.v1 import AppTest
import vitmae_search.web.server.main as main
page = AppTest.from_file(main.__file__, default_timeout=60).run()
assert not page.exception, page.exception
print(page.title[0].value)
"""
    assert run_installed("python", "-c", code).strip()
