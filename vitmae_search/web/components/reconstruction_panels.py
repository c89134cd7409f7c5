"""A reconstruction as the studio's script gets it: one binary answer, drawn by `studio.js`.

::

    length, uint32 LE | header, JSON, padded with spaces to a multiple of 4
    H x W x 3, uint8: the completed picture | H x W x 3, uint8: the guess of every patch

All pictures have the model's size; the browser enlarges them. The header says the mask, each patch's error,
the loss, and how far the guesses are off.
"""

from __future__ import annotations

import json

import numpy as np

from vitmae_search.inspection.masks import mask_text
from vitmae_search.library.previews import completed_pixels, largest_error
from vitmae_search.records import Reconstruction


def encode(made: Reconstruction, *, soften: bool) -> bytes:
    """A reconstruction in the form above.

    Args:
        made: The reconstruction.
        soften: Smooth the steps between neighbouring guesses in the completed picture.
    """
    header = {
        "mask": mask_text(made.mask),
        "loss": made.loss,
        "levels": made.level_error,
        "errors": [float(f"{value:.5g}") for value in made.error.ravel().tolist()],
        "largest": largest_error(made),
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    completed = completed_pixels(made, soften=soften)
    length: bytes = np.uint32(len(text)).astype("<u4").tobytes()
    return b"".join([length, text, completed.tobytes(), made.reconstruction.tobytes()])
