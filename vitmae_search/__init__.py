"""Search a photo folder by how its photos look, with a masked autoencoder, on your own machine.

`Library` is the front door::

    from vitmae_search import Library

    with Library.open("my-library") as library:
        library.index("~/Pictures")
        for hit in library.search("query.jpg", k=10).hits:
            print(hit.score, hit.photo.path)
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitmae_search.library import Library

__all__ = ["Library", "__version__"]

try:
    __version__ = version("vitmae-search")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    """`Library` on first use: importing the package alone loads neither SQLAlchemy nor FAISS."""
    if name == "Library":
        from vitmae_search.library import Library

        return Library
    raise AttributeError(f"module 'vitmae_search' has no attribute {name!r}")
