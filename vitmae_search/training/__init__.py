"""Training of the model on a folder of photos: pretraining without labels, fine-tuning with them.

Packed data, recipes, loops, checkpoints, pictures. Everything random is a function of the seed and
the step, so that a run stopped at any step goes on as if nothing had happened.
"""

from vitmae_search.training.finetune import FinetuneHooks, finetune
from vitmae_search.training.finetune_model import MeanPooledClassifier, load_classifier
from vitmae_search.training.finetune_options import FinetuneOptions
from vitmae_search.training.finetune_report import FinetuneProgress, FinetuneReport
from vitmae_search.training.loop import PretrainProgress, PretrainReport
from vitmae_search.training.options import PRESETS, PretrainOptions
from vitmae_search.training.pretrain import model_config, pretrain

__all__ = [
    "PRESETS",
    "FinetuneHooks",
    "FinetuneOptions",
    "FinetuneProgress",
    "FinetuneReport",
    "MeanPooledClassifier",
    "PretrainOptions",
    "PretrainProgress",
    "PretrainReport",
    "finetune",
    "load_classifier",
    "model_config",
    "pretrain",
]
