"""Show a photo in the system's file manager, where the visitor sits at the server's own machine."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from vitmae_search.address import is_address
from vitmae_search.settings import can_open_browser

_FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via")
_SECONDS = 10.0


def can_reveal() -> bool:
    """Whether the visitor is at this machine: from a loopback address, through no proxy, with a display."""
    return is_at_this_machine(st.context.ip_address, st.context.headers) and can_open_browser()


def is_at_this_machine(address: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine, as far as it says.

    Args:
        address: The visitor's; None is a loopback address, as Streamlit has it.
        headers: The request's, in any case of letters.
    """
    if any(name.lower() in _FORWARDED for name in headers):
        return False
    try:
        return address is None or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def reveal(path: str) -> bool:
    """Open the folder of a file in the file manager, with the file selected where that is possible.

    Returns:
        Whether a file manager was asked.
    """
    return not is_address(path) and any(_runs(command) for command in commands(path))


def commands(path: str, system: str = sys.platform) -> list[list[str]]:
    """The commands that show a file, to be tried in this order.

    Args:
        path: The file.
        system: As `sys.platform` names it.
    """
    if system == "darwin":
        return [["open", "-R", path]]
    if system == "win32":
        return [["explorer", f"/select,{path}"]]
    address = Path(path).as_uri().replace(",", "%2C")  # dbus-send takes a comma for the end of the address
    service = ["--session", "--print-reply", "--dest=org.freedesktop.FileManager1"]
    call = ["/org/freedesktop/FileManager1", "org.freedesktop.FileManager1.ShowItems"]
    return [
        ["dbus-send", *service, *call, f"array:string:{address}", "string:"],
        ["xdg-open", os.path.dirname(path)],
    ]


def _runs(command: list[str]) -> bool:
    program = shutil.which(command[0])
    if program is None:
        return False
    try:
        done = subprocess.run(  # noqa: S603  a program of the system, with a path from the catalogue
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 or os.path.basename(program).startswith("explorer")  # which always says 1
