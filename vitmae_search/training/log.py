"""The log of a run: one JSON object a line, so that it can be read while it grows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from vitmae_search.training.files import write_atomically


@dataclass(frozen=True, slots=True)
class LogLine:
    """One interval of the training. `loss` and `gradient_norm` are means over its steps.

    `epoch` counts passes over the photos, `seconds` is training time over all resumes.
    """

    step: int
    epoch: float
    loss: float
    rate: float
    gradient_norm: float
    seconds: float
    images_per_second: float


class _Line(Protocol):
    """A dataclass of JSON values that knows its step."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def step(self) -> int: ...


L = TypeVar("L", bound=_Line)


class LineLog(Generic[L]):
    """Appends lines to `path`, and forgets those that come after a checkpoint that is gone back to."""

    def __init__(self, path: Path, kind: type[L]) -> None:
        self.path, self._kind = path, kind

    def append(self, line: L) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(line)) + "\n")

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
            stream.writelines((json.dumps(asdict(line)) + "\n").encode() for line in kept)


class RunLog(LineLog[LogLine]):
    """The log of a pretraining."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LogLine)
