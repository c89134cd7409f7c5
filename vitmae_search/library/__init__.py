"""The front door: `Library` puts the rooms together. Command line and web app use nothing below it."""

from typing import TYPE_CHECKING

from vitmae_search.library.library import Library
from vitmae_search.library.samples import is_sample_folder, write_samples
from vitmae_search.photos.reconstruction_sheet import panels_png, save_panels

if TYPE_CHECKING:
    from vitmae_search.evaluation import Evaluation as Evaluation

__all__ = ["Library", "is_sample_folder", "panels_png", "save_panels", "write_samples"]
