"""The catalogue: photos, contents, vectors, spaces, failures, tags and runs, in one file or on a server.

`Catalog` reads, from any thread and process; `CatalogWriter` is the one that changes it. What goes in and
comes out are the records of `vitmae_search.records`; nothing here knows photos' pixels, plugins or FAISS.
"""

from vitmae_search.catalog.catalog import Catalog
from vitmae_search.catalog.database import one_version
from vitmae_search.catalog.databases import database_name
from vitmae_search.catalog.derived_spaces import Derivation
from vitmae_search.catalog.job_table import JobTable
from vitmae_search.catalog.marks import HIGHEST_RATING
from vitmae_search.catalog.photos import KnownFile
from vitmae_search.catalog.record_batch import Indexed
from vitmae_search.catalog.shared_values import SharedValues
from vitmae_search.catalog.tags import Taggable
from vitmae_search.catalog.writable_sqlite import make_library_folder
from vitmae_search.catalog.writer import CatalogWriter

__all__ = [
    "HIGHEST_RATING",
    "Catalog",
    "CatalogWriter",
    "Derivation",
    "Indexed",
    "JobTable",
    "KnownFile",
    "SharedValues",
    "Taggable",
    "database_name",
    "make_library_folder",
    "one_version",
]
