"""Search a photo folder by how its photos look, with a masked autoencoder, on your own machine.

Start with `Library`::

    from vitmae_search import Library

    with Library.open("my-library") as library:
        library.index("~/Pictures")
        for hit in library.search("query.jpg", k=10).hits:
            print(hit.score, hit.photo.path)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitmae_search.library import Library

    __version__: str

__all__ = ["Library", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Library` and `__version__` on first use, so that importing the package alone is quick."""
    if name == "Library":
        from vitmae_search.library import Library

        return Library
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("vitmae-search")
        except PackageNotFoundError:  # a checkout that was not installed
            return "0"
    raise AttributeError(f"module 'vitmae_search' has no attribute {name!r}")
