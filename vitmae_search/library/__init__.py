"""The front door: `Library` puts the rooms together. Command line and web app use nothing below it."""

from vitmae_search.evaluation import Evaluation
from vitmae_search.library.front import Library
from vitmae_search.library.samples import is_sample_folder, write_samples
from vitmae_search.search.panels import panels_png, save_panels

__all__ = ["Evaluation", "Library", "is_sample_folder", "panels_png", "save_panels", "write_samples"]
