"""What the documentation names exists: links, files, modules, commands and options."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click

from vitmae_search.cli.main import COMMANDS, cli
from vitmae_search.library import Library

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "data/models").rglob("README.md"),
    ]
)
MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
PACKAGES = "|".join(sorted(path.name for path in (ROOT / "vitmae_search").iterdir() if path.is_dir()))
FILE = re.compile(
    rf"`((?:(?:{PACKAGES}|tests|benchmarks|plugins|data|docs|vitmae_search)/[\w./-]*"
    r"|[\w/]+\.(?:py|toml|md|txt|cff)|Dockerfile|Makefile))`"
)

WRITTEN_BY_COMMANDS = {"facts.md", "base.md", "gpu.md"}
NOT_OURS = {"test_modeling_common.py", "test_configuration_common.py"}  # of transformers
NAMES_OF_DECISIONS = {"text.py", "embeddings.py"}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site both make them."""
    text = FENCED.sub("", page.read_text("utf-8"))
    found = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", text, re.M):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(re.sub(r"\s", "-", plain.strip()))
    return found


def prose_links(page: Path) -> Iterator[tuple[str, str]]:
    """The relative links of a page, as file and anchor."""
    for address in MARKDOWN_LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if not re.match(r"[a-z]+:", address):
            file, _, anchor = address.partition("#")
            yield unquote(file), anchor


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for file, anchor in prose_links(page):
            target = (page.parent / file) if file else page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                broken.append(f"{page_id(page)}: {file}#{anchor}")
    assert broken == []


def test_files_that_are_named_exist() -> None:
    """Names in backticks: from the top, from `vitmae_search/`, or beside the page."""
    gone = []
    for page in PAGES:
        places = (ROOT, ROOT / "vitmae_search", page.parent)
        names = (
            set(FILE.findall(page.read_text("utf-8"))) - WRITTEN_BY_COMMANDS - NOT_OURS - NAMES_OF_DECISIONS
        )
        gone += [
            f"{page_id(page)}: {name}"
            for name in names
            if not any((place / name).exists() for place in places)
        ]
    assert gone == []


def test_modules_that_are_run_exist() -> None:
    for page in PAGES:
        for module in re.findall(r"-m ((?:benchmarks|vitmae_search)[\w.]*)", page.read_text("utf-8")):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_python_names_exist() -> None:
    """`vitmae_search.a.b` can be imported, and `Library.x` is a method."""
    unknown = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for name in set(re.findall(r"\bvitmae_search(?:\.\w+)+", text)):
            unknown += [] if can_be_resolved(name) else [f"{page_id(page)}: {name}"]
        for name in set(re.findall(r"`Library\.(\w+)", text)):
            unknown += [] if hasattr(Library, name) else [f"{page_id(page)}: Library.{name}"]
    assert unknown == []


def can_be_resolved(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    if name == "vitmae_search.embedders":  # the entry points' group
        return True
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def known_options(name: str) -> set[str]:
    """The options of a command and of its subcommands."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    commands = [command, *getattr(command, "commands", {}).values()]
    parameters = [parameter for one in commands for parameter in one.params]
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def test_options_that_are_named_exist() -> None:
    unknown = []
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for command, rest in re.findall(r"\bvitmae-search ([a-z]+)\b([^`#\n|]*)", text):
            if command in COMMANDS:  # and not prose, such as "vitmae-search is"
                named = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest))
                unknown += [f"{page_id(page)}: {command} {name}" for name in named - known_options(command)]
    assert unknown == []


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.M):
            assert target in targets, f"{page_id(page)}: make {target}"


def test_every_page_is_in_the_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))

    def files(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for value in entry.values():
                yield from files(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from files(value)

    named = set(files(config["project"]["nav"]))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    records = {page for page in pages if re.match(r"decisions/\d", page)}
    assert pages - records == named


def test_every_decision_is_in_the_list_and_has_its_three_parts() -> None:
    listed = (DOCS / "decisions/index.md").read_text("utf-8")
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text("utf-8")
        number, title = int(record.name[:4]), text.splitlines()[0].removeprefix("# ")
        assert title.startswith(f"{number}. ")
        assert f"- [{title}]({record.name})" in listed
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    page = (DOCS / "architecture.md").read_text("utf-8")
    tree = page[page.index("```") : page.index("```", page.index("```") + 3)]
    named = set(re.findall(r"^  (\w+(?:\.py)?/?) ", tree, re.M))
    real = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "vitmae_search").iterdir()
        if (path.is_dir() or path.suffix == ".py") and not path.name.startswith("_")
    }
    assert named == real


def test_the_arrows_in_the_architecture_are_those_that_are_checked() -> None:
    spec = importlib.util.spec_from_file_location("test_imports", ROOT / "tests/architecture/test_imports.py")
    assert spec is not None
    assert spec.loader is not None
    checked = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checked)
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (DOCS / "architecture.md").read_text("utf-8"), re.M)
    drawn = {package: set(re.findall(r"`(\w+)`", names)) for package, names in rows}
    assert drawn
    assert drawn == {package: checked.ARROWS[package] - checked.LEAVES for package in drawn}
    packages = {package for package in checked.ARROWS if not package.startswith("_")}
    assert drawn.keys() | checked.LEAVES == packages
