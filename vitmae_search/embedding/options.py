"""Plugin options: from `-o KEY=VALUE` to values of the types that the plugin's defaults have."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vitmae_search.embedding.plugin import PluginInfo
from vitmae_search.errors import PluginOptionError, mask_credentials

OptionValue = str | int | float | bool

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_BOOLEANS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
_TYPE_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def resolve_options(info: PluginInfo, given: Mapping[str, object]) -> dict[str, OptionValue]:
    """Every option of the plugin: its default, or the given value in the default's type.

    Args:
        info: The plugin's.
        given: Values of the right type, or strings, which are parsed (bool: true/false, yes/no, on/off, 1/0;
            float: finite).

    Raises:
        PluginOptionError: For an option that the plugin does not have, or a value that does not fit.
    """
    unknown = sorted(set(given) - set(info.options))
    if unknown:
        known = ", ".join(sorted(info.options)) or "none"
        raise PluginOptionError(info.name, f"no option {unknown[0]!r}; it has: {known}")
    return {
        key: _convert(info.name, key, given[key], default) if key in given else default
        for key, default in info.options.items()
    }


def _convert(plugin: str, key: str, value: object, default: OptionValue) -> OptionValue:
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if isinstance(value, str) and kind is not str:
        value = _parse(plugin, key, value, kind)
    if type(value) is not kind:
        raise PluginOptionError(plugin, f"option {key}={value!r} must be {_TYPE_NAMES[kind]}")
    if isinstance(value, str) and mask_credentials(value) != value:
        raise PluginOptionError(
            plugin,
            f"option {key} holds a password or token, which the library would keep; "
            "name the model without it (the hub's token is taken from HF_TOKEN)",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise PluginOptionError(plugin, f"option {key}={value!r} must be a finite number")
    return value


def _parse(plugin: str, key: str, text: str, kind: type[OptionValue]) -> OptionValue:
    try:
        return _BOOLEANS[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise PluginOptionError(plugin, f"option {key}={text!r} must be {_TYPE_NAMES[kind]}") from None
