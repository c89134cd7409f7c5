"""The front door: `Library` puts the rooms together. Command line and web app use nothing below it."""

from vitmae_search.library.front import Library
from vitmae_search.library.samples import is_sample_folder, write_samples

__all__ = ["Library", "is_sample_folder", "write_samples"]
