"""Imports run one way, and torch stays where it belongs. Read from the source, so nothing can hide.

Here a package is a folder or file directly in `vitmae_search`; all plugins together are one more. Imports in
functions count, and so do those for type checkers only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "vitmae_search"

LEAVES = {
    "address",
    "errors",
    "records",
    "notebook",
    "bundled",
    "atomic",
    "regular_file",
    "mask_patterns",
    "latest_values",
}
"""Every package may import these."""

ARROWS: dict[str, set[str]] = {
    "vitmae": {"hub"},
    "embedding": set(),
    "photos": set(),
    "catalog": set(),
    "vectors": set(),
    "indexing": {"photos", "catalog", "vectors", "embedding"},
    "search": {"photos", "catalog", "vectors", "embedding"},
    "evaluation": {"photos"},
    "inspection": set(),
    "training": {"vitmae", "photos", "training_runs"},
    "library": {
        *("indexing", "search", "inspection", "evaluation", "training"),
        *("photos", "catalog", "vectors", "embedding", "settings", "measurement_cache"),
    },
    "web": {"library", "inspection", "settings", "training_runs", "filter_values"},
    "cli": {"library", "inspection", "settings", "web", "training", "training_runs", "filter_values"},
    "filter_values": set(),
    "training_runs": {"settings"},
    "measurement_cache": {"settings"},
    "hub": set(),
    "settings": set(),
    "address": set(),
    "errors": set(),
    "records": set(),
    "notebook": set(),
    "mask_patterns": set(),
    "atomic": set(),
    "bundled": set(),
    "regular_file": set(),
    "latest_values": set(),
    "__main__": {"cli"},
    "__init__": {"library"},
    "plugins": {"embedding", "vitmae", "hub", "training_runs", "settings"},
}
"""What each package may import besides the leaves."""

TORCH_PACKAGES = {"vitmae", "training"}
"""Only these, and plugins, may name torch at all."""

HEAVY = ("torch", "transformers", "faiss", "streamlit", "sqlalchemy")

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "_bundled" not in path.parts)
PLUGIN_SOURCES = sorted((ROOT / "plugins").rglob("*.py"))
OTHER_SOURCES = [ROOT / "app.py", *sorted((ROOT / "benchmarks").rglob("*.py"))]


def module_name(path: Path) -> str:
    """`vitmae_search.photos.scan` for that file, `vitmae_search.photos` for the folder's `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in (*SOURCES, *PLUGIN_SOURCES, *OTHER_SOURCES)}


def package_of(path: Path) -> str:
    inside = PACKAGE if PACKAGE in path.parents else ROOT
    return path.relative_to(inside).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, those of this repository as keys of `MODULES`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= set(imports_from(path, node))
    return found


def imports_from(path: Path, node: ast.ImportFrom) -> Iterator[str]:
    # Only a plugin may write relative imports: it does not know its own full name.
    assert node.level == 0 or package_of(path) == "plugins", f"{path}: write imports in full, not relative"
    package = path.parents[node.level - 1] if node.level else None
    source = ".".join(filter(None, [module_name(package) if package else "", node.module or ""]))
    for alias in node.names:
        yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source


def packages_imported(path: Path) -> set[str]:
    """The packages of `vitmae_search` that a file imports, its own aside."""
    parts = [module.split(".") for module in imports_of(path)]
    packages = {part[1] for part in parts if part[0] == "vitmae_search" and len(part) > 1}
    return packages - {package_of(path)}


@pytest.mark.parametrize("path", [*SOURCES, *PLUGIN_SOURCES], ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_run_one_way(path: Path) -> None:
    allowed = ARROWS[package_of(path)] | LEAVES
    assert packages_imported(path) <= allowed, f"{package_of(path)} may import {sorted(allowed)}"


def test_every_package_is_drawn() -> None:
    assert {package_of(path) for path in (*SOURCES, *PLUGIN_SOURCES)} == set(ARROWS)


@pytest.mark.parametrize("package", ARROWS)
def test_every_arrow_is_used(package: str) -> None:
    files = [path for path in (*SOURCES, *PLUGIN_SOURCES) if package_of(path) == package]
    used = set().union(*(packages_imported(path) for path in files))
    assert used - LEAVES == ARROWS[package]


def test_no_cycle_between_packages() -> None:
    fail_at_cycle({package: ARROWS[package] | (set() if package in LEAVES else LEAVES) for package in ARROWS})


def test_no_cycle_between_files() -> None:
    fail_at_cycle({name: imports_of(path) & MODULES.keys() - {name} for name, path in MODULES.items()})


def fail_at_cycle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_plugins(path: Path) -> None:
    assert not any(module.split(".")[0] == "plugins" for module in imports_of(path))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_is_named_only_where_it_belongs(path: Path) -> None:
    if package_of(path) not in TORCH_PACKAGES:
        assert not any(module.split(".")[0] == "torch" for module in imports_of(path))


def test_only_one_file_talks_to_the_hub() -> None:
    users = [
        path
        for path in SOURCES + PLUGIN_SOURCES
        if any(module.startswith("huggingface_hub") for module in imports_of(path))
    ]
    assert [str(path.relative_to(ROOT)) for path in users] == ["vitmae_search/hub.py"]


def test_only_settings_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(word in path.read_text("utf-8") for word in ("os.environ", "os.getenv"))
    ]
    assert readers == ["vitmae_search/settings.py"]


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import vitmae_search", HEAVY),
        ("import vitmae_search.cli.main", HEAVY),
        ("import vitmae_search.library", ("torch", "transformers", "streamlit")),
        ("import vitmae_search.web.server.main", ("torch", "transformers")),
    ],
)
def test_importing_loads_nothing_heavy(statement: str, heavy: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint(*sorted(set(sys.modules) & {set(heavy)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
