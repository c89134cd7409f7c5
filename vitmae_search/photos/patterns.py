"""Exclude patterns: simple globs in the manner of `.gitignore`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def excluder(patterns: Sequence[str]) -> Callable[[str, str, bool], bool]:
    """A function `(name, relative, folder) -> excluded` for `patterns`.

    `name` is the last component, `relative` the path below the root, with "/" between components.
    A pattern without "/" is matched with the name, at any depth; one with a "/" inside or in front is
    matched with the path from the root. A "/" at the end asks for folders alone. `*` and `?` stay within
    one component, `**` crosses them, `[abc]` and `[!abc]` are one character. Letter case counts.
    Excluding a folder excludes all below it, since the walk does not enter.
    """
    tests = [_compile(pattern) for pattern in patterns if pattern.strip("/")]

    def excluded(name: str, relative: str, folder: bool) -> bool:
        return any(
            regex.fullmatch(relative if by_path else name) is not None
            for regex, by_path, folders_only in tests
            if folder or not folders_only
        )

    return excluded


def _compile(pattern: str) -> tuple[re.Pattern[str], bool, bool]:
    body = pattern.rstrip("/")
    by_path = "/" in body
    expression = "".join(_translate(token) for token in _TOKEN.findall(body.lstrip("/")))
    return re.compile(expression, re.DOTALL), by_path, pattern.endswith("/")


def _translate(token: str) -> str:
    if token in _WILD:
        return _WILD[token]
    if token.startswith("[") and len(token) > 2:
        negated = token[1] == "!"
        return _character_class(token[2:-1] if negated else token[1:-1], negated)
    return re.escape(token)


def _character_class(members: str, negated: bool) -> str:
    # A reversed range such as [z-a] matches nothing in a shell; `re` would refuse the whole pattern.
    ranges = re.sub(r"(.)-(.)", lambda m: m[0] if m[1] <= m[2] else "", members, flags=re.DOTALL)
    if not ranges:
        return "[^/]" if negated else "(?!)"
    escaped = re.sub(r"([^\w-])", r"\\\1", ranges)
    return f"[^/{escaped}]" if negated else f"[{escaped}]"
