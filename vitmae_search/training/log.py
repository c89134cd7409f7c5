"""The log of a training run: JSON lines, so that it can be read while it grows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from vitmae_search.atomic import write_atomically


class _Line(Protocol):
    """A dataclass of JSON values with a step number."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def step(self) -> int: ...


L = TypeVar("L", bound=_Line)


class JsonLinesLog(Generic[L]):
    """An append-only file of lines of one dataclass.

    Args:
        path: The file; it need not exist.
        line_type: The dataclass of its lines.
    """

    def __init__(self, path: Path, line_type: type[L]) -> None:
        self.path, self._line_type = path, line_type

    def append(self, line: L) -> None:
        """Write `line` at the end."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_serialize(line))

    def read(self) -> list[L]:
        """All complete lines; one that a kill cut short is left out."""
        lines = []
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(self._line_type(**json.loads(text)))
                except (ValueError, TypeError):
                    continue
        return lines

    def truncate(self, step: int) -> None:
        """Drop the lines after `step`, which come again when a run resumes at an earlier checkpoint."""
        lines = [line for line in self.read() if line.step <= step]
        with write_atomically(self.path) as stream:
            stream.writelines(_serialize(line).encode() for line in lines)


def _serialize(line: _Line) -> str:
    """One line of JSON. Optional fields that are None are left out."""
    optional = {field.name for field in fields(line) if field.default is None}
    values = {name: v for name, v in asdict(line).items() if v is not None or name not in optional}
    return json.dumps(values) + "\n"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One interval of pretraining.

    Attributes:
        step: Steps done.
        epoch: Passes over the photos.
        loss: Mean over the interval's steps. With a contrastive loss it is the weighted sum of
            `reconstruction` and `contrastive`.
        rate: The last step's learning rate.
        gradient_norm: Mean over the interval's steps, before clipping.
        seconds: Training time over all resumes.
        images_per_second: Throughput over the interval.
        reconstruction: The reconstruction loss, where there is a contrastive one as well.
        contrastive: The contrastive loss.
    """

    step: int
    epoch: float
    loss: float
    rate: float
    gradient_norm: float
    seconds: float
    images_per_second: float
    reconstruction: float | None = None
    contrastive: float | None = None


_LOSS_TERMS = ("reconstruction", "contrastive")


class PretrainLog(JsonLinesLog[LogLine]):
    """The log of a pretraining run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LogLine)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """(epoch, loss) points by loss term, or all under the name "" without a contrastive loss."""
        lines = self.read()
        terms = {name: [(x.epoch, getattr(x, name)) for x in lines] for name in _LOSS_TERMS}
        present = {name: [p for p in points if p[1] is not None] for name, points in terms.items()}
        curves = {name: points for name, points in present.items() if points}
        return curves or {"": [(line.epoch, line.loss) for line in lines]}
