"""Numbers as tables to download."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, float | None]


def csv_table(rows: Sequence[Row]) -> bytes:
    """Rows as a CSV file with a line of titles.

    Args:
        rows: One or more, of the same columns.
    """
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def patch_rows(values: Mapping[str, NDArray[Any]]) -> list[Row]:
    """A row for each patch, with where it is, counted from 0, and its values; None for NaN.

    Args:
        values: (rows, columns), by their titles; one or more.
    """
    rows, columns = next(iter(values.values())).shape
    return [
        {"row": row, "column": column}
        | {
            title: None if np.isnan(each[row, column]) else each[row, column].item()
            for title, each in values.items()
        }
        for row in range(rows)
        for column in range(columns)
    ]
