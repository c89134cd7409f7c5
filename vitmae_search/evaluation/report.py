"""The result of an evaluation, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitmae_search.errors import display_path
from vitmae_search.evaluation.bootstrap import LEVEL, Figure
from vitmae_search.evaluation.duplicates import DuplicateScores
from vitmae_search.evaluation.instances import SAME_PHOTO
from vitmae_search.evaluation.measure import Figures, MethodScores
from vitmae_search.records import Failure, ScoreCalibration

CURVE_POINTS = 101


@dataclass(frozen=True, slots=True)
class Table:
    """Text in columns: the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good searches are on one set of photos, method by method.

    Attributes:
        folder: Where the photos are.
        photos: Distinct pictures that could be read.
        classes: How many classes they have.
        queries: Photos that have another one of their class.
        unlabelled: Photos without a class, which are left out of what needs classes.
        instances: Photos that were changed and looked for.
        copies: Files with the same content as another, which are left out.
        failures: Files that could not be read.
        notes: Sentences about what could not be measured.
        methods: The scores of each method, the evaluated model first.
        decode: How the photos were decoded.
        variants: Whether changed photos were searched for as searches do, without their borders and turned.
        seed: What was drawn.
        seconds: How long it took.
    """

    folder: str
    photos: int
    classes: int
    queries: int
    unlabelled: int
    instances: int
    copies: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    methods: tuple[MethodScores, ...]
    decode: str
    variants: bool
    seed: int
    seconds: float

    @property
    def calibration(self) -> ScoreCalibration | None:
        """What the scores of the evaluated model mean, where that was measured."""
        duplicates = self.methods[0].duplicates
        return None if duplicates is None else duplicates.calibration

    @property
    def summary(self) -> str:
        """One line: what was measured on."""
        counts = [f"{self.photos} photos"]
        for count, what in (
            (self.classes, "classes"),
            (self.instances, "changed and looked for"),
            (self.unlabelled, "without a class"),
            (self.copies, "copies left out"),
            (len(self.failures), "could not be read"),
        ):
            if count:
                counts.append(f"{count} {what}")
        where = display_path(self.folder)
        return f"{where}: {', '.join(counts)}; seed {self.seed}. Intervals of {LEVEL:.0%} by bootstrap."

    def tables(self) -> list[Table]:
        """One table for classes, one for each recall, one for near-duplicates; those that were measured."""
        shown = [_neighbour_table(self), *_instance_tables(self), _duplicate_table(self)]
        return [table for table in shown if table is not None]

    def markdown(self) -> str:
        """The summary, the notes, the tables and the failures, as Markdown."""
        parts = ["# Evaluation", self.summary]
        parts += [f"- {note}" for note in self.notes]
        for table in self.tables():
            lines = [_line(table.header), "|" + "---|" * len(table.header), *map(_line, table.rows)]
            parts += [f"## {table.title}", "\n".join(lines)]
        if self.failures:
            listed = [f"- {display_path(failure.path)}: {failure.reason}" for failure in self.failures]
            parts += ["## Photos that could not be read", "\n".join(listed)]
        return "\n\n".join(parts) + "\n"

    def as_json(self) -> dict[str, object]:
        """Plain JSON. Figures are shares from 0 to 1, each with its value and the ends of its interval."""
        return {
            "folder": self.folder,
            "photos": self.photos,
            "classes": self.classes,
            "queries": self.queries,
            "unlabelled": self.unlabelled,
            "instances": self.instances,
            "copies": self.copies,
            "failed": len(self.failures),
            "failures": [{"path": failure.path, "reason": failure.reason} for failure in self.failures],
            "notes": list(self.notes),
            "interval": LEVEL,
            "decode": self.decode,
            "variants": self.variants,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "methods": [_method_json(method) for method in self.methods],
        }


def _neighbour_table(found: Evaluation) -> Table | None:
    measured = [method for method in found.methods if method.neighbours]
    if not measured:
        return None
    names = tuple(measured[0].neighbours)
    rows = tuple(
        (method.name, str(method.dimension), *(percent(method.neighbours[name], 2) for name in names))
        for method in measured
    )
    title = f"Neighbours of the same class: {found.queries} photos asked, {found.classes} classes"
    return Table(title, ("features", "D", *(f"{name}, %" for name in names)), rows)


def _instance_tables(found: Evaluation) -> list[Table]:
    measured = [method for method in found.methods if method.instances]
    if not measured:
        return []
    header = ("change", *(method.name for method in measured))
    made = []
    for recall in ("recall@1", "recall@10"):
        rows = tuple(
            (kind, *(percent(method.instances[kind][recall]) for method in measured))
            for kind in measured[0].instances
        )
        title = f"A changed photo finds its original among {found.instances}: {recall}, %"
        made.append(Table(title, header, rows))
    return made


def _duplicate_table(found: Evaluation) -> Table | None:
    measured = [(m, m.duplicates) for m in found.methods if m.duplicates is not None]
    if not measured:
        return None
    header = (
        "features",
        "average precision, %",
        "best F1, %",
        "at score",
        "recall at 99 % precision, %",
        "from score",
        "chance below",
    )
    rows = tuple(
        (
            method.name,
            percent(scores.average_precision),
            percent(scores.best_f1),
            f"{scores.best_score:.4f}",
            percent(scores.precise_recall),
            _score_text(scores.precise_score),
            _score_text(scores.chance_score),
        )
        for method, scores in measured
    )
    title = f"Near-duplicates ({', '.join(SAME_PHOTO)}) among {found.instances} photos"
    return Table(title, header, rows)


def _score_text(score: float | None) -> str:
    return "–" if score is None else f"{score:.4f}"


def percent(figure: Figure, digits: int = 1) -> str:
    """A share in per cent, with its interval: "12.3 (11.8–12.9)".

    Args:
        figure: The share, 0 to 1.
        digits: Decimal places.
    """
    value, low, high = (f"{100 * share:.{digits}f}" for share in (figure.value, figure.low, figure.high))
    return f"{value} ({low}–{high})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _method_json(method: MethodScores) -> dict[str, object]:
    return {
        "name": method.name,
        "dimension": method.dimension,
        "neighbours": _figures_json(method.neighbours),
        "instances": {kind: _figures_json(figures) for kind, figures in method.instances.items()},
        "duplicates": None if method.duplicates is None else _duplicates_json(method.duplicates),
    }


def _figures_json(figures: Figures) -> dict[str, object]:
    return {name: _figure_json(figure) for name, figure in figures.items()}


def _figure_json(figure: Figure) -> dict[str, float]:
    return {name: round(getattr(figure, name), 6) for name in ("value", "low", "high")}


def _duplicates_json(scores: DuplicateScores) -> dict[str, object]:
    count = len(scores.scores)
    rows = np.linspace(0, count - 1, min(count, CURVE_POINTS)).round().astype(int)  # both ends are in it
    points = np.stack([scores.scores, scores.precision, scores.recall], axis=1)[rows].round(6).tolist()
    names = ("score", "precision", "recall")
    return {
        "average_precision": _figure_json(scores.average_precision),
        "best_f1": _figure_json(scores.best_f1),
        "best_score": round(scores.best_score, 6),
        "recall_at_99_precision": _figure_json(scores.precise_recall),
        "score_at_99_precision": _rounded(scores.precise_score),
        "chance_score": _rounded(scores.chance_score),
        "curve": [dict(zip(names, point, strict=True)) for point in points],
    }


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 6)
