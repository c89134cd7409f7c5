from __future__ import annotations

import pytest

from vitmae_search.embedding import PluginInfo, resolve_options
from vitmae_search.errors import PluginOptionError

INFO = PluginInfo("p", "P", options={"size": 8, "deep": False, "power": 1.5, "mode": "a"})


def test_defaults_where_nothing_is_given() -> None:
    assert resolve_options(INFO, {}) == {"size": 8, "deep": False, "power": 1.5, "mode": "a"}


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("size", "16", 16),
        ("size", -2, -2),
        ("deep", "yes", True),
        ("deep", "FALSE", False),
        ("deep", True, True),
        ("power", "3", 3.0),
        ("power", "1e-3", 0.001),
        ("power", 2, 2.0),
        ("mode", "3", "3"),
        ("mode", "", ""),
    ],
)
def test_values_take_the_type_of_the_default(key: str, given: object, value: object) -> None:
    resolved = resolve_options(INFO, {key: given})[key]
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(
    ("key", "given"),
    [("size", "8.5"), ("size", "x"), ("size", True), ("size", 8.0), ("deep", "maybe"), ("deep", 1),
     ("power", "nan"), ("power", "inf"), ("power", True), ("mode", 3), ("mode", None)],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_by_name(key: str, given: object) -> None:
    with pytest.raises(PluginOptionError, match=f"plugin 'p': option {key}="):
        resolve_options(INFO, {key: given})


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(PluginOptionError, match="no option 'sise'; it has: deep, mode, power, size"):
        resolve_options(INFO, {"sise": "8"})
    with pytest.raises(PluginOptionError, match="it has: none"):
        resolve_options(PluginInfo("q", "Q"), {"a": "b"})
