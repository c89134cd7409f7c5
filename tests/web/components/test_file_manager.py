"""Who is offered the file manager, and what is run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from vitmae_search.web.components.file_manager import commands, is_at_this_machine, reveal


@pytest.mark.parametrize(
    ("address", "headers", "here"),
    [
        (None, {"Host": "localhost:8501"}, True),
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("192.168.1.7", {}, False),
        ("nonsense", {}, False),
        (None, {"X-Forwarded-For": "203.0.113.9"}, False),  # a proxy on this machine
        (None, {"forwarded": "for=203.0.113.9"}, False),
    ],
)
def test_only_a_visitor_at_this_machine_is_offered_it(
    address: str | None, headers: dict[str, str], here: bool
) -> None:
    assert is_at_this_machine(address, headers) is here


def test_each_system_is_asked_in_its_own_way() -> None:
    assert commands("/a b/c.jpg", "darwin") == [["open", "-R", "/a b/c.jpg"]]
    assert commands("/a b/c.jpg", "win32") == [["explorer", "/select,/a b/c.jpg"]]
    shown, opened = commands("/a b/c,d.jpg", "linux")
    assert "array:string:file:///a%20b/c%2Cd.jpg" in shown
    assert opened == ["xdg-open", "/a b"]


@pytest.mark.skipif(os.name != "posix", reason="a script as a program")
def test_the_folder_is_opened_where_files_cannot_be_selected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert not reveal("/photos/$(touch x).jpg")
    said = tmp_path / "said"
    for name, status in (("dbus-send", 1), ("xdg-open", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$0 $@" >> {shlex.quote(str(said))}\nexit {status}\n')
        program.chmod(0o755)
    assert reveal("/photos/$(touch x).jpg")
    assert said.read_text().splitlines()[1] == f"{tmp_path}/xdg-open /photos"
