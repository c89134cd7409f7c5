"""What a model sees in a picture: attention, features of patches, and why two pictures match. Without torch.

All of it is computed from `Inspection`, which a plugin makes. `figures` draws it.
"""

from vitmae_search.inspection.attention import attention_map, mean_attention, rollout
from vitmae_search.inspection.features import feature_colors, layer_changes, patch_similarity
from vitmae_search.inspection.match import explain_match

__all__ = [
    "attention_map",
    "explain_match",
    "feature_colors",
    "layer_changes",
    "mean_attention",
    "patch_similarity",
    "rollout",
]
