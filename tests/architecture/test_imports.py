"""Imports run one way, and torch stays where it belongs. Read from the source, so nothing can hide."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vitmae_search"

LEAVES = {"errors", "records", "bundled", "atomic"}
"""All may import these."""

ARROWS: dict[str, set[str]] = {
    "vitmae": {"hub"},
    "embedding": set(),
    "photos": set(),
    "catalog": set(),
    "vectors": set(),
    "indexing": {"photos", "catalog", "vectors", "embedding"},
    "search": {"photos", "catalog", "vectors", "embedding"},
    "evaluation": {"photos", "catalog", "vectors", "embedding"},
    "training": {"vitmae", "photos", "training_runs"},
    "library": {
        *("indexing", "search", "evaluation", "training"),
        *("photos", "catalog", "vectors", "embedding", "settings", "training_runs", "measurement_cache"),
    },
    "web": {"library", "settings", "training_runs"},
    "cli": {"library", "settings", "web", "training"},
    "training_runs": {"settings"},
    "measurement_cache": {"settings"},
    "hub": set(),
    "settings": set(),
    "errors": set(),
    "records": {"errors"},
    "atomic": set(),
    "bundled": set(),
    "__main__": {"cli"},
    "__init__": {"library"},
}

TORCH_ROOMS = {"vitmae", "training"}
"""Only these, and plugins, may name torch at all."""

HEAVY = ("torch", "transformers", "faiss", "streamlit", "sqlalchemy")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            in_plugin = PACKAGE not in path.parents  # a plugin does not know its own full name
            assert node.level == 0 or in_plugin, f"{path}: write imports in full, not relative"
            found.add("" if node.level else node.module or "")
            if node.module == "vitmae_search":
                found |= {f"vitmae_search.{alias.name}" for alias in node.names}
    return found


def imported_rooms(path: Path) -> set[str]:
    parts = [module.split(".") for module in imported_modules(path)]
    return {part[1] for part in parts if part[0] == "vitmae_search" and len(part) > 1}


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if "_bundled" not in p.parts)
PLUGIN_SOURCES = sorted((ROOT / "plugins").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_run_one_way(path: Path) -> None:
    room = room_of(path)
    allowed = ARROWS[room] | LEAVES | {room}
    assert imported_rooms(path) <= allowed, f"{room} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_plugins(path: Path) -> None:
    assert not any(module.split(".")[0] == "plugins" for module in imported_modules(path))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_is_named_only_where_it_belongs(path: Path) -> None:
    if room_of(path) not in TORCH_ROOMS:
        assert not any(module.split(".")[0] == "torch" for module in imported_modules(path))


@pytest.mark.parametrize("path", PLUGIN_SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_use_the_contract_and_the_model_only(path: Path) -> None:
    assert imported_rooms(path) <= {
        "embedding",
        "vitmae",
        "hub",
        "training_runs",
        "measurement_cache",
        *LEAVES,
    }


def test_every_room_is_drawn() -> None:
    assert {room_of(path) for path in SOURCES} <= set(ARROWS)


def test_only_one_file_talks_to_the_hub() -> None:
    users = [
        p
        for p in SOURCES + PLUGIN_SOURCES
        if any(m.startswith("huggingface_hub") for m in imported_modules(p))
    ]
    assert [str(p.relative_to(ROOT)) for p in users] == ["vitmae_search/hub.py"]


def test_only_settings_reads_the_environment() -> None:
    readers = [
        str(p.relative_to(ROOT))
        for p in SOURCES
        if any(word in p.read_text("utf-8") for word in ("os.environ", "os.getenv"))
    ]
    assert readers == ["vitmae_search/settings.py"]


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import vitmae_search", HEAVY),
        ("import vitmae_search.cli.main", HEAVY),
        ("import vitmae_search.library", ("torch", "transformers", "streamlit")),
        ("import vitmae_search.web.main", ("torch", "transformers")),
    ],
)
def test_importing_loads_nothing_heavy(statement: str, heavy: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint(*sorted(set(sys.modules) & {set(heavy)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
