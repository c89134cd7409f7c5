"""What an embedding plugin is: the contract, the host that finds plugins, and the guard around them.

For the author of a plugin: subclass `EmbedderPlugin` and `Embedder` (and `Classifier`), describe it with a
`PluginInfo`, raise the errors that are here, and check it with `vitmae_search.embedding.testing`.

For the host: `PluginHost` lists and loads plugins; `open_embedder` and `open_classifier` open their models
with everything checked; `fingerprint` says which vectors may be compared. A `Projection` makes the vectors
of another space from the features that a plugin gives.
"""

from vitmae_search.embedding.fingerprint import (
    EmbedderDescription,
    canonical_json,
    derived_fingerprint,
    derived_identity,
    fingerprint,
)
from vitmae_search.embedding.guard import (
    GuardedClassifier,
    GuardedEmbedder,
    ProjectedEmbedder,
    open_classifier,
    open_embedder,
)
from vitmae_search.embedding.guard_prepare import GuardedPrepare
from vitmae_search.embedding.options import resolve_options
from vitmae_search.embedding.plugin import (
    API_VERSION,
    CAPABILITIES,
    Classifier,
    Embedder,
    EmbedderPlugin,
    OpenModel,
    Options,
    PluginInfo,
    Prepare,
)
from vitmae_search.embedding.plugin_errors import translate_memory_errors
from vitmae_search.embedding.plugin_host import (
    ENTRY_POINTS,
    PluginHost,
    code_digest,
    file_stamp,
    load_drop_in,
)
from vitmae_search.embedding.projection import Projection, projection_path
from vitmae_search.errors import (
    CheckpointError,
    DeviceError,
    ModelNotFound,
    NoDecoder,
    NoText,
    PluginOptionError,
)
from vitmae_search.records import Inspection, ModelListing, Reconstruction

__all__ = [
    "API_VERSION",
    "CAPABILITIES",
    "ENTRY_POINTS",
    "CheckpointError",
    "Classifier",
    "DeviceError",
    "Embedder",
    "EmbedderDescription",
    "EmbedderPlugin",
    "GuardedClassifier",
    "GuardedEmbedder",
    "GuardedPrepare",
    "Inspection",
    "ModelListing",
    "ModelNotFound",
    "NoDecoder",
    "NoText",
    "OpenModel",
    "Options",
    "PluginHost",
    "PluginInfo",
    "PluginOptionError",
    "Prepare",
    "ProjectedEmbedder",
    "Projection",
    "Reconstruction",
    "canonical_json",
    "code_digest",
    "derived_fingerprint",
    "derived_identity",
    "file_stamp",
    "fingerprint",
    "load_drop_in",
    "open_classifier",
    "open_embedder",
    "projection_path",
    "resolve_options",
    "translate_memory_errors",
]
