"""The log of a run: one JSON object a line, so that it can be read while it grows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from vitmae_search.atomic import write_atomically


@dataclass(frozen=True, slots=True)
class LogLine:
    """One interval of the training. `loss` and `gradient_norm` are means over its steps.

    With a contrastive loss, `loss` is the weighted sum of `reconstruction` and `contrastive`.
    `epoch` counts passes over the photos, `seconds` is training time over all resumes.
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


class _Line(Protocol):
    """A dataclass of JSON values that knows its step."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def step(self) -> int: ...


_TERMS = ("reconstruction", "contrastive")

L = TypeVar("L", bound=_Line)


class LineLog(Generic[L]):
    """Appends lines to `path`, and forgets those that come after a checkpoint that is gone back to."""

    def __init__(self, path: Path, kind: type[L]) -> None:
        self.path, self._kind = path, kind

    def append(self, line: L) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_written(line))

    def read(self) -> list[L]:
        """Every whole line; one that a kill cut short is left out."""
        lines = []
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(self._kind(**json.loads(text)))
                except (ValueError, TypeError):
                    continue
        return lines

    def rewind(self, step: int) -> None:
        """Keep the lines up to `step`."""
        kept = [line for line in self.read() if line.step <= step]
        with write_atomically(self.path) as stream:
            stream.writelines(_written(line).encode() for line in kept)


def _written(line: _Line) -> str:
    """What a line does not have is left out."""
    absent = {field.name for field in fields(line) if field.default is None}
    values = {name: v for name, v in asdict(line).items() if v is not None or name not in absent}
    return json.dumps(values) + "\n"


class RunLog(LineLog[LogLine]):
    """The log of a pretraining."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LogLine)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """(epoch, loss) points under no name or, with a contrastive loss, each term's under its own."""
        lines = self.read()
        terms = {name: [(x.epoch, getattr(x, name)) for x in lines] for name in _TERMS}
        there = {name: [p for p in points if p[1] is not None] for name, points in terms.items()}
        curves = {name: points for name, points in there.items() if points}
        return curves or {"": [(line.epoch, line.loss) for line in lines]}
