"""What an embedding plugin is: the contract, finding plugins, and the guard around them.

`PluginHost` lists and gets plugins; `open_embedder`, and `open_classifier` for those that have one, open
one with everything checked; `fingerprint` says which vectors may be compared. A `Projection` makes the
vectors of another space from the features that a plugin gives.
`vitmae_search.embedding.testing` lets a plugin's author check their own.
"""

from vitmae_search.embedding.fingerprint import (
    EmbedderDescription,
    canonical_json,
    derived_fingerprint,
    derived_identity,
    fingerprint,
)
from vitmae_search.embedding.guard import GuardedClassifier, GuardedEmbedder, open_classifier, open_embedder
from vitmae_search.embedding.guard_prepare import GuardedPrepare, enough_memory
from vitmae_search.embedding.options import resolve_options
from vitmae_search.embedding.plugin import (
    API_VERSION,
    CAPABILITIES,
    Batching,
    Choosing,
    Classifier,
    ClassifierOpener,
    Embedder,
    EmbedderPlugin,
    FromFiles,
    ModelLister,
    Options,
    PluginInfo,
    Prepare,
    Projecting,
    Reconstructor,
    Resting,
    Untrained,
)
from vitmae_search.embedding.plugin_host import ENTRY_POINTS, PluginHost, code_digest, load_drop_in, stamp
from vitmae_search.embedding.projection import ProjectedEmbedder, Projection, projection_path

__all__ = [
    "API_VERSION",
    "CAPABILITIES",
    "ENTRY_POINTS",
    "Batching",
    "Choosing",
    "Classifier",
    "ClassifierOpener",
    "Embedder",
    "EmbedderDescription",
    "EmbedderPlugin",
    "FromFiles",
    "GuardedClassifier",
    "GuardedEmbedder",
    "GuardedPrepare",
    "ModelLister",
    "Options",
    "PluginHost",
    "PluginInfo",
    "Prepare",
    "ProjectedEmbedder",
    "Projecting",
    "Projection",
    "Reconstructor",
    "Resting",
    "Untrained",
    "canonical_json",
    "code_digest",
    "derived_fingerprint",
    "derived_identity",
    "enough_memory",
    "fingerprint",
    "load_drop_in",
    "open_classifier",
    "open_embedder",
    "projection_path",
    "resolve_options",
    "stamp",
]
