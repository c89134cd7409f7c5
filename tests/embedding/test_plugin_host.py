"""Finding plugins: order, duplicates, and that a broken one is listed and hides nobody."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vitmae_search.embedding import PluginHost, load_drop_in, open_embedder
from vitmae_search.errors import PluginBroken, PluginNotFound
from vitmae_search.records import PluginListing


def own(host: PluginHost) -> dict[str, PluginListing]:
    return {p.name: p for p in host.listings() if not p.origin.startswith("bundled")}


def host_of(folder: Path) -> PluginHost:
    return PluginHost([folder], packages=False)


def test_bundled_plugins_come_first_and_sorted() -> None:
    listings = [p for p in PluginHost().listings() if p.origin.startswith("bundled")]
    names = [p.name for p in listings]
    assert "color_layout" in names
    assert names == sorted(names)
    assert all(p.error is None for p in listings)


def test_a_file_and_a_package_with_relative_imports(tmp_path: Path, write_plugin) -> None:
    write_plugin("one")
    new = "from .sizes import SIDE\nimport numpy"
    package = write_plugin("two", package=True, old="import numpy", new=new)
    (package / "sizes.py").write_text("SIDE = 8\n")
    host = host_of(tmp_path / "plugins")
    assert list(own(host)) == ["one", "two"]
    for name in ("one", "two"):
        assert open_embedder(host.get(name)).dimension == 192


def test_only_what_comes_before_a_plugin_is_loaded_for_it(tmp_path: Path, write_plugin) -> None:
    write_plugin("one")
    write_plugin("two", code=f"open({str(tmp_path / 'loaded')!r}, 'w').close()")
    host = host_of(tmp_path / "plugins")
    assert host.get("one").info.name == "one"
    assert not (tmp_path / "loaded").exists()
    with pytest.raises(PluginNotFound):
        host.get("three")
    assert (tmp_path / "loaded").exists()
    assert own(host)["two"].error is not None


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert own(host_of(tmp_path / "nowhere")) == {}


def test_hidden_private_and_other_files_are_no_plugins(tmp_path: Path, write_plugin) -> None:
    write_plugin("_helper", code="raise RuntimeError")
    write_plugin(".hidden", code="raise RuntimeError")
    (tmp_path / "plugins" / "notes.txt").write_text("notes")
    (tmp_path / "plugins" / "pictures").mkdir()
    assert own(host_of(tmp_path / "plugins")) == {}


BROKEN = {
    "syntax": ("def broken(:\n", "SyntaxError"),
    "raises": ("1 / 0\n", "ZeroDivisionError: division by zero (raises.py, line 1)"),
    "imports": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "base": ("class Odd(BaseException): pass\nraise Odd('hm')\n", "Odd: hm"),
    "empty": ("", "no attribute `plugin`"),
    "wrong": ("plugin = 42\n", "no attribute `plugin`"),
    "latin": ("name = 'caf\udce9'\n", "SyntaxError"),
}


def test_broken_plugins_are_listed_and_the_others_load(tmp_path: Path, write_plugin) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, (code, _) in BROKEN.items():
        (folder / f"{name}.py").write_bytes(os.fsencode(code))
    write_plugin("good")
    host = host_of(folder)
    listed = own(host)
    assert set(listed) == {*BROKEN, "good"}
    for name, (_, reason) in BROKEN.items():
        assert reason in (listed[name].error or ""), name
        with pytest.raises(PluginBroken, match=name):
            host.get(name)
    assert listed["good"].error is None
    assert open_embedder(host.get("good")).model == "mean-colour"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "class Plugin(EmbedderPlugin):",
            "class Plugin:",
            "instance of a subclass of vitmae_search.embedding.",
        ),
        (
            "plugin = Plugin()",
            "plugin = Plugin",
            "instance of a subclass of vitmae_search.embed",
        ),
        ("    def open(", "    def load(", "abstract method"),
        ("title=", "api_version=2, title=", "plugin API 2; this host has 1"),
        ("title=", "vector_revision=0, title=", "vector_revision=0"),
        ("title=", "capabilities=frozenset({'fly', 'embed'}), title=", "unknown capability 'fly'"),
        ("title=", "capabilities=frozenset(), title=", "must be a set that has 'embed'"),
        ('name="mine"', 'name="two words"', "the name 'two words'"),
        ('name="mine"', "name=3", "the name 3"),
        ('"size": 8', '"size": [8]', "the default of option 'size'"),
        ('"size": 8', '"si=ze": 8', "the option name 'si=ze'"),
        ("info = PluginInfo(", "info = dict(", "must be a PluginInfo, not dict"),
        ("    info = ", "    @property\n    def info(self): raise KeyError('x')\n    x = ", "KeyError"),
    ],
)
def test_a_plugin_that_describes_itself_wrongly(tmp_path: Path, write_plugin, old, new, reason) -> None:
    write_plugin("mine", old=old, new=new)
    assert reason in (own(host_of(tmp_path / "plugins"))["mine"].error or "")


def test_a_folder_without_init_is_listed_with_what_it_lacks(tmp_path: Path, write_plugin) -> None:
    (write_plugin("mine", package=True) / "__init__.py").rename(tmp_path / "plugins" / "mine" / "plugin.py")
    assert "no __init__.py" in (own(host_of(tmp_path / "plugins"))["mine"].error or "")


def test_of_two_with_one_name_the_first_is_used(tmp_path: Path, write_plugin) -> None:
    write_plugin("a_mine", old='name="a_mine"', new='name="color_layout"')
    host = host_of(tmp_path / "plugins")
    second = own(host)["color_layout"]
    assert "taken by bundled" in (second.error or "")
    assert second.title
    assert "a_mine.py" in second.origin
    assert open_embedder(host.get("color_layout")).model == "color-layout"


def test_one_file_name_in_two_folders(tmp_path: Path, write_plugin) -> None:
    write_plugin("same", folder=tmp_path / "a", old='name="same"', new='name="first"')
    write_plugin("same", folder=tmp_path / "b", old='name="same"', new='name="second"')
    host = PluginHost([tmp_path / "a", tmp_path / "b"], packages=False)
    assert list(own(host)) == ["first", "second"]


def test_ctrl_c_in_a_plugin_passes(tmp_path: Path, write_plugin) -> None:
    write_plugin("mine", code="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        host_of(tmp_path / "plugins").listings()


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(PluginNotFound, match="color_layout"):
        PluginHost(packages=False).get("colour_layout")


def test_a_failed_import_leaves_no_half_module(tmp_path: Path, write_plugin) -> None:
    write_plugin("half", code="value = 1\nraise RuntimeError('later')")
    host_of(tmp_path / "plugins").listings()
    assert not [name for name in sys.modules if "plugins.half_" in name]


def test_load_drop_in(write_plugin) -> None:
    assert load_drop_in(write_plugin("alone")).info.name == "alone"
    with pytest.raises(TypeError, match="no attribute `plugin`"):
        load_drop_in(write_plugin("nothing", code=""))


@pytest.mark.parametrize("what", ["folder", "file", "package", "part"])
def test_what_others_may_write_to_is_not_loaded(tmp_path: Path, write_plugin, what: str) -> None:
    """Its code would run with the rights of whoever searches."""
    good = write_plugin("mine", package=what in ("package", "part"))
    folder = good.parent
    part = good / "__init__.py"
    path = {"folder": folder, "file": good, "package": good, "part": part}[what]
    path.chmod(path.stat().st_mode | 0o002)
    host = PluginHost([folder], packages=False)
    (listing,) = [one for one in host.listings() if one.origin.startswith("folder")]
    assert listing.error is not None
    assert f"others may write to {path}" in listing.error
    with pytest.raises(PluginBroken, match="chmod go-w"):
        host.get("mine")
    path.chmod(path.stat().st_mode & ~0o002)
    assert PluginHost([folder], packages=False).get("mine").info.name == "mine"


def test_a_link_that_leads_nowhere_is_listed_and_the_others_load(tmp_path: Path, write_plugin) -> None:
    folder = write_plugin("mine").parent
    (folder / "gone.py").symlink_to(tmp_path / "nowhere.py")
    host = PluginHost([folder], packages=False)
    errors = {one.name: one.error for one in host.listings() if one.origin.startswith("folder")}
    assert errors["mine"] is None
    assert errors["gone"] is not None
    assert host.get("mine").info.name == "mine"
