"""Training of the model on a folder of photos: packed data, recipe, loop, checkpoints, pictures.

Everything random is a function of the seed and the step, so that a run stopped at any step goes on as
if nothing had happened.
"""

from vitmae_search.training.loop import PretrainProgress, PretrainReport
from vitmae_search.training.options import PRESETS, PretrainOptions
from vitmae_search.training.pretrain import model_config, pretrain

__all__ = [
    "PRESETS",
    "PretrainOptions",
    "PretrainProgress",
    "PretrainReport",
    "model_config",
    "pretrain",
]
