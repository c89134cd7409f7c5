"""Figures of what a model sees, for print and notebooks (`%matplotlib inline`): figures of matplotlib.

Colors are "cividis" for amounts and "PuOr" for what is added or taken away: both can be told apart by people
who see no difference between red and green, and read in grey.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import InspectionError, StorageError, display_path
from vitmae_search.inspection.attention import (
    Source,
    attention_map,
    mean_attention,
    patch_number,
    rollout,
)
from vitmae_search.inspection.features import feature_colors, layer_changes, patch_similarity
from vitmae_search.inspection.series import SeedStatistics
from vitmae_search.records import (
    Box,
    Inspection,
    MatchExplanation,
    PatchGrid,
    Reconstruction,
    RegionExplanation,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
AMOUNTS, SIGNED = "cividis", "PuOr"
_SIDE = 2.4
"""Inches of a panel."""
_WHOLE = (0.0, 1.0, 1.0, 0.0)
"""Where pictures and maps lie in a panel: left, right, bottom, top."""
_PAIRS = 12
"""Correspondences that are drawn."""


def attention_figure(made: Inspection, layer: int | None = None, source: Source = "cls") -> Figure:
    """The picture, and over it what a token attends to: the mean of a layer's heads, and each head.

    Args:
        made: Of a picture.
        layer: 1 to the model's depth; None for the roll-out through all layers.
        source: Whose attention.

    Raises:
        InspectionError: There is no such layer or patch.
    """
    if layer is None:
        maps = [("roll-out", attention_map(made, rollout(made), source))]
    else:
        heads = made.attention.shape[1]
        maps = [(f"layer {layer}, mean", attention_map(made, mean_attention(made, layer), source))]
        maps += [
            (f"head {head}", attention_map(made, mean_attention(made, layer, head), source))
            for head in range(1, heads + 1)
        ]
    figure, axes = picture_panels(1 + len(maps))
    show_picture(axes[0], made.picture, "the picture")
    if not isinstance(source, str):
        _frame(axes[0], made, source)
    top = max(float(values.max()) for _, values in maps)
    for place, (title, values) in zip(axes[1:], maps, strict=True):
        show_picture(place, made.picture, title, grey=True)
        drawn = place.imshow(
            values, cmap=AMOUNTS, vmin=0, vmax=top, extent=_WHOLE, interpolation="nearest", alpha=0.8
        )
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="share of a patch")
    return figure


def features_figure(pictures: Sequence[Inspection], layers: Sequence[int]) -> Figure:
    """Each picture, and beside it its features after some layers as colors, the same for all pictures.

    Args:
        pictures: Of one model.
        layers: Numbers, 0 to the model's depth.

    Raises:
        InspectionError: There is no such layer.
    """
    colors = [feature_colors(pictures, layer) for layer in layers]
    figure, axes = picture_panels(1 + len(layers), len(pictures))
    for row, made in enumerate(pictures):
        places = axes[row * (1 + len(layers)) :]
        show_picture(places[0], made.picture, "the picture")
        for place, layer, found in zip(places[1:], layers, colors, strict=False):
            show_picture(place, found[row], f"layer {layer}")
    return figure


def similarity_figure(made: Inspection, layer: int, patch: tuple[int, int]) -> Figure:
    """The picture, and over it how alike each patch is to one of them.

    Args:
        made: Of a picture.
        layer: After which, 0 to the model's depth.
        patch: Row and column of the patch, from 0.

    Raises:
        InspectionError: There is no such layer or patch.
    """
    values = patch_similarity(made, made, layer)[patch_number(made, patch)].reshape(made.grid)
    figure, axes = picture_panels(2, side=2 * _SIDE)
    show_picture(axes[0], made.picture, "the picture")
    _frame(axes[0], made, patch)
    show_picture(axes[1], made.picture, f"alike after layer {layer}", grey=True)
    drawn = axes[1].imshow(values, cmap=AMOUNTS, extent=_WHOLE, interpolation="nearest", alpha=0.8)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="cosine")
    return figure


def layers_figure(made: Inspection) -> Figure:
    """How much each layer changes the patches, as a curve.

    Args:
        made: Of a picture.
    """
    figure, (place,) = picture_panels(1, side=2 * _SIDE)
    changes = layer_changes(made)
    place.plot(range(1, len(changes) + 1), changes, "o-")
    place.set(xlabel="layer", ylabel="1 - cosine of a patch before and after", ylim=(0, None))
    return figure


def sweep_figure(made: Sequence[Reconstruction]) -> Figure:
    """The loss over mask ratios, as a curve.

    Args:
        made: Of `ratio_sweep`.
    """
    figure, (place,) = picture_panels(1, side=2 * _SIDE)
    points = [(each.mask_ratio, each.loss) for each in made if each.loss is not None]
    place.plot([ratio for ratio, _ in points], [loss for _, loss in points], "o-")
    place.set(xlabel="share of hidden patches", ylabel="mean squared error of hidden patches", ylim=(0, None))
    return figure


def seeds_figure(found: SeedStatistics) -> Figure:
    """The mean guess, and where guesses differ.

    Args:
        found: Of `seed_statistics`.
    """
    figure, axes = picture_panels(2, side=2 * _SIDE)
    show_picture(axes[0], found.mean, "mean guess")
    show_picture(axes[1], found.mean, "where the model is unsure", grey=True)
    drawn = axes[1].imshow(found.deviation, cmap=AMOUNTS, vmin=0, extent=_WHOLE, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="deviation, of 255 levels")
    return figure


def importance_figure(made: Reconstruction, importance: NDArray[np.float32]) -> Figure:
    """What the model saw, and how much each visible patch matters for its guesses.

    Args:
        made: The reconstruction.
        importance: (gh, gw), of `patch_importance`.
    """
    figure, axes = picture_panels(2, side=2 * _SIDE)
    show_picture(axes[0], made.masked, "what the model saw")
    show_picture(axes[1], made.masked, "what matters", grey=True)
    top = float(np.nanmax(np.abs(importance))) or 1.0
    drawn = axes[1].imshow(
        importance, cmap=SIGNED, vmin=-top, vmax=top, extent=_WHOLE, interpolation="nearest", alpha=0.8
    )
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="rise of the error without it")
    return figure


def iterations_figure(made: Sequence[Reconstruction]) -> Figure:
    """What comes of a picture that is reconstructed again and again, four in a row.

    Args:
        made: Of `iterate`.
    """
    columns = min(4, 1 + len(made))
    rows = -(-(1 + len(made)) // columns)
    figure, axes = picture_panels(columns, rows)
    show_picture(axes[0], made[0].original, "the picture")
    for number, (place, each) in enumerate(zip(axes[1:], made, strict=False), 1):
        show_picture(place, each.pasted, "once" if number == 1 else f"{number} times")
    for place in axes[1 + len(made) :]:
        place.set_axis_off()
    return figure


def match_figure(found: MatchExplanation | RegionExplanation) -> Figure:
    """Query and hit with the strongest correspondences, and what each of their patches adds to the score.

    Args:
        found: The explanation.
    """
    from matplotlib.patches import ConnectionPatch

    with_shares = found.query_shares is not None and found.hit_shares is not None
    figure, axes = picture_panels(2, 2 if with_shares else 1, side=2 * _SIDE)
    figure.suptitle(f"score {found.score:.3f}")
    show_picture(axes[0], found.query.picture, "query")
    show_picture(axes[1], found.hit.picture, "hit")
    if isinstance(found, RegionExplanation):
        _outline(axes[1], found.hit_box)
    for own, other in found.pairs[:_PAIRS]:
        strength = float(max(found.similarity[own, other], 0))
        ends = _center(found.query, int(own)), _center(found.hit, int(other))
        line = ConnectionPatch(
            *ends, "data", "data", axesA=axes[0], axesB=axes[1], color="#e66100", lw=1 + strength, alpha=0.9
        )
        figure.add_artist(line)
    if found.query_shares is not None and found.hit_shares is not None:
        top = float(max(np.abs(found.query_shares).max(), np.abs(found.hit_shares).max())) or 1.0
        sides = (
            (found.query, found.query_shares, found.query_rest),
            (found.hit, found.hit_shares, found.hit_rest),
        )
        named = "others" if isinstance(found, RegionExplanation) else "projection"
        for place, (made, shares, rest) in zip(axes[2:], sides, strict=True):
            show_picture(place, made.picture, f"patches {shares.sum():+.3f}, {named} {rest:+.3f}", grey=True)
            drawn = place.imshow(
                shares, cmap=SIGNED, vmin=-top, vmax=top, extent=_WHOLE, interpolation="nearest", alpha=0.8
            )
        figure.colorbar(drawn, ax=axes[2:], shrink=0.7, label="added to the score")
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure, whole or not at all.

    Args:
        figure: The figure.
        path: Its ending says the format, one of `FORMATS`.

    Raises:
        InspectionError: The ending is another one.
        StorageError: It cannot be written.
    """
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise InspectionError(f"{display_path(path)}: figures are .{', .'.join(FORMATS)} files.")
    with saved(path) as stream:
        _write(figure, stream, kind, 200)


@contextmanager
def saved(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that is written whole or not at all.

    Args:
        path: The file.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with write_atomically(Path(path)) as stream:
            yield stream
    except OSError as error:
        raise StorageError(f"{display_path(path)} cannot be written: {error.strerror or error}.") from error


def write_png(figure: Figure, stream: IO[bytes]) -> None:
    """Write a figure for a screen.

    Args:
        figure: The figure.
        stream: A binary file.
    """
    _write(figure, stream, "png", 110)


def figure_png(figure: Figure) -> bytes:
    """A figure as a PNG file for a screen or a notebook.

    Args:
        figure: The figure.
    """
    stream = BytesIO()
    write_png(figure, stream)
    return stream.getvalue()


def blank_figure(columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with places for charts beside each other.

    Args:
        columns: How many.
    """
    return picture_panels(columns, side=1.6 * _SIDE)


def _write(figure: Figure, stream: IO[bytes], kind: str, dpi: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(stream, format=kind, dpi=dpi)


def picture_panels(columns: int, rows: int = 1, side: float = _SIDE) -> tuple[Figure, list[Axes]]:
    """A figure with square panels.

    Args:
        columns: Panels beside each other.
        rows: Panels below each other.
        side: Inches of a panel.

    Returns:
        The figure, and its panels row by row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side * columns + 1, side * rows + 0.4), layout="constrained")
    places: NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    return figure, list(places.ravel())


def show_picture(place: Axes, picture: NDArray[np.uint8], title: str, *, grey: bool = False) -> None:
    """Fill a panel with a picture, whose pixels keep their edges.

    Args:
        place: The panel.
        picture: (H, W, 3) uint8.
        title: Above it.
        grey: Without its colors.
    """
    shown = picture.mean(axis=2) if grey else picture  # colors over colors could not be read
    place.imshow(
        shown, "gray", interpolation="nearest", extent=_WHOLE, aspect=len(picture) / picture.shape[1]
    )
    place.set_title(title, fontsize=9)
    place.set_axis_off()


def _frame(place: Axes, made: Inspection, patch: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = made.grid
    corner = patch[1] / columns, patch[0] / rows
    place.add_patch(Rectangle(corner, 1 / columns, 1 / rows, fill=False, color="#e66100", lw=2))


def _outline(place: Axes, box: Box) -> None:
    from matplotlib.patches import Rectangle

    place.add_patch(Rectangle((box.left, box.top), box.width, box.height, fill=False, color="#e66100", lw=2))


def _center(made: Inspection | PatchGrid, patch: int) -> tuple[float, float]:
    row, column = divmod(patch, made.grid[1])
    return (column + 0.5) / made.grid[1], (row + 0.5) / made.grid[0]
