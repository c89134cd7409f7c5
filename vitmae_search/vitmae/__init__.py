"""The model: a ViTMAE in plain torch, with the names, fields and outputs of the reference.

It knows nothing of photos, plugins or search. Pure functions (`positions`, `masking`, `patches`, `loss`)
carry the arithmetic, `layers`, `encoder`, `decoder` and `modeling` put them together.
"""

from vitmae_search.vitmae.config import ViTMAEConfig
from vitmae_search.vitmae.encoder import ViTMAEModel
from vitmae_search.vitmae.loss import reconstruction_loss
from vitmae_search.vitmae.modeling import ViTMAEForPreTraining
from vitmae_search.vitmae.outputs import ViTMAEForPreTrainingOutput, ViTMAEModelOutput
from vitmae_search.vitmae.patches import patchify, unpatchify

__all__ = [
    "ViTMAEConfig",
    "ViTMAEForPreTraining",
    "ViTMAEForPreTrainingOutput",
    "ViTMAEModel",
    "ViTMAEModelOutput",
    "patchify",
    "reconstruction_loss",
    "unpatchify",
]
