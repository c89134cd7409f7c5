"""Fingers on a screen, as Chromium's protocol sends them: real touch events, not those of a mouse."""

from __future__ import annotations

from typing import Any

Path = list[tuple[float, float]]
STEPS = 6  # between two corners of a path


def stroke(page: Any, *paths: Path) -> None:
    """Put a finger down for each path, move them along all at once, and lift them.

    Args:
        page: A page of a context that has touch.
        paths: Corners in pixels of the window, as many for each finger.
    """
    session = page.context.new_cdp_session(page)

    def send(kind: str, points: Path) -> None:
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    send("touchStart", [path[0] for path in paths])
    for corner in range(1, len(paths[0])):
        for step in range(1, STEPS + 1):
            send("touchMove", [_between(path[corner - 1], path[corner], step / STEPS) for path in paths])
    send("touchEnd", [])
    session.detach()


def _between(one: tuple[float, float], other: tuple[float, float], share: float) -> tuple[float, float]:
    return (one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1]))
