"""How often patches that correspond show the same thing, by layer, where the right answer is known.

    python -m benchmarks.correspondence FOLDER [--model MODEL]

The photos of a folder, their mirror image, turned by 180°, and cropped to half their sides. A pair of
mutually most similar patches is right if it is at most one patch off. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from PIL.Image import Transpose

from benchmarks.timing import markdown_table
from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.inspection import patch_similarity
from vitmae_search.inspection.match import mutual_pairs
from vitmae_search.records import Inspection

SIDE = 512
Place = Callable[[float, float], tuple[float, float]]
"""Where the middle of a patch, as fractions of the sides, is in the changed picture."""
CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], Place]] = {
    "mirrored": (
        lambda image: image.transpose(Transpose.FLIP_LEFT_RIGHT),
        lambda row, column: (row, 1 - column),
    ),
    "turned by 180°": (
        lambda image: image.transpose(Transpose.ROTATE_180),
        lambda row, column: (1 - row, 1 - column),
    ),
    "its middle": (
        lambda image: image.crop((SIDE // 4, SIDE // 4, 3 * SIDE // 4, 3 * SIDE // 4)),
        lambda row, column: (2 * row - 0.5, 2 * column - 0.5),
    ),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photos")
    parser.add_argument("--model", default="", help="a folder or hub id; the bundled one without it")
    chosen = parser.parse_args()
    options = {"runtime": "torch", **({"model": chosen.model} if chosen.model else {})}
    files = sorted(path for path in chosen.folder.iterdir() if path.is_file())
    images = [Image.open(path).convert("RGB").resize((SIDE, SIDE)) for path in files]
    with open_embedder(PluginHost().get("vitmae"), options, "cpu", "fp32") as embedder:
        originals = [embedder.inspect(image) for image in images]
        changed = {
            name: [embedder.inspect(change(image)) for image in images]
            for name, (change, _) in CHANGES.items()
        }
    rows = []
    for layer in range(len(originals[0].tokens)):
        shares = [share_right(originals, changed[name], layer, place) for name, (_, place) in CHANGES.items()]
        rows.append((str(layer), *(f"{100 * share:.0f} %" for share in shares)))
    print(f"{len(images)} photos\n")
    print(markdown_table(("after layer", *CHANGES), rows))


def share_right(originals: list[Inspection], changed: list[Inspection], layer: int, place: Place) -> float:
    """The share of mutual pairs that are at most one patch off.

    Args:
        originals: Of the photos.
        changed: Of the changed photos.
        layer: Whose features are compared.
        place: Where a patch should be.
    """
    right = total = 0
    for one, two in zip(originals, changed, strict=True):
        (rows, columns), (others, wide) = one.grid, two.grid
        for own, other in mutual_pairs(patch_similarity(one, two, layer)):
            row, column = place((own // columns + 0.5) / rows, (own % columns + 0.5) / columns)
            off = (row * others - 0.5 - other // wide, column * wide - 0.5 - other % wide)
            right += max(map(abs, off)) <= 1
            total += 1
    return right / max(total, 1)


if __name__ == "__main__":
    main()
