"""How results show themselves in notebooks: small pictures in the text itself, and names as text.

A notebook asks an object for `_repr_html_`. What it answers is stored in the notebook, so pictures are small
and few.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitmae_search.errors import display_path

if TYPE_CHECKING:
    from PIL import Image

MOST_TILES = 24
SIDE = 160
"""Pixels of a picture's longer side, at most."""
_PANEL_SIDE = 224
_QUALITY = 75

_LIST = "display:flex;flex-wrap:wrap;gap:8px;margin:6px 0"
_TILE = "width:130px;margin:0;font-size:11px;line-height:1.3;overflow-wrap:anywhere"
_IMAGE = "width:130px;height:130px;object-fit:cover;border-radius:6px;display:block;background:#8884"


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture with what is said below it.

    Attributes:
        path: The photo's file; its name is shown, the whole path where one points at it.
        note: A few words, such as a score.
        jpeg: The thumbnail, None where there is none.
    """

    path: str
    note: str
    jpeg: bytes | None


def gallery(heading: str, tiles: Iterable[Tile], total: int) -> str:
    """HTML of pictures in rows.

    Args:
        heading: Plain text above them.
        tiles: The pictures; the first `MOST_TILES` are shown.
        total: How many there are.
    """
    shown = [_figure(tile) for tile in islice(tiles, MOST_TILES)]
    more = f"<div>and {total - len(shown):,} more</div>" if total > len(shown) else ""
    return f'<div><b>{escape(heading)}</b><div style="{_LIST}">{"".join(shown)}</div>{more}</div>'


def panels(heading: str, pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> str:
    """HTML of arrays as pictures beside each other.

    Args:
        heading: Plain text above them.
        pictures: What each one is, and (H, W, 3) uint8.
    """
    from PIL import Image

    figures = []
    for name, pixels in pictures:
        image = Image.fromarray(pixels)
        image.thumbnail((_PANEL_SIDE, _PANEL_SIDE))
        figures.append(
            f'<figure style="margin:0;font-size:11px"><img src="{_uri(_encoded(image, "PNG"), "png")}" '
            f'alt="{escape(name)}" style="width:{_PANEL_SIDE}px;image-rendering:auto">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
        )
    return f'<div><b>{escape(heading)}</b><div style="{_LIST}">{"".join(figures)}</div></div>'


def _figure(tile: Tile) -> str:
    path = display_path(tile.path)
    name = path.replace("\\", "/").rpartition("/")[2]
    picture = f'<img src="{_uri(_smaller(tile.jpeg), "jpeg")}"' if tile.jpeg else "<div"
    end = f' alt="{escape(name)}" style="{_IMAGE}">' if tile.jpeg else f' style="{_IMAGE}"></div>'
    return (
        f'<figure style="{_TILE}" title="{escape(path)}">{picture}{end}'
        f"<figcaption>{escape(name)}<br>{escape(tile.note)}</figcaption></figure>"
    )


def _smaller(jpeg: bytes) -> bytes:
    """A thumbnail of the library's own, smaller."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((SIDE, SIDE))
        return _encoded(image.convert("RGB"), "JPEG", quality=_QUALITY)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
