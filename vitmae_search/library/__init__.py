"""The public API: `Library`. Command line and web app use nothing below it.

`reconstruction_sheet` and `save_reconstruction` make one picture of what `Library.reconstruct` returns.
"""

from typing import TYPE_CHECKING

from vitmae_search.catalog import one_version
from vitmae_search.library.library import Library
from vitmae_search.library.samples import is_sample_folder, write_samples
from vitmae_search.photos.reconstruction_sheet import reconstruction_sheet, save_reconstruction

if TYPE_CHECKING:
    from vitmae_search.catalog import SharedValues as SharedValues
    from vitmae_search.evaluation import Evaluation as Evaluation

__all__ = [
    "Library",
    "is_sample_folder",
    "one_version",
    "reconstruction_sheet",
    "save_reconstruction",
    "write_samples",
]
