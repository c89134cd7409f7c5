"""Training on a folder of photos: pretraining without labels, adaptation, and fine-tuning with labels.

Everything random is a function of the seed and the step, so that a run interrupted at any step resumes
exactly where it was.
"""

from vitmae_search.training.distributed import is_main_process
from vitmae_search.training.finetuning.finetune import FinetuneHooks, finetune
from vitmae_search.training.finetuning.model import MeanPooledClassifier, load_classifier
from vitmae_search.training.finetuning.options import FinetuneOptions
from vitmae_search.training.finetuning.report import FinetuneProgress, FinetuneReport
from vitmae_search.training.pretraining.loop import PretrainProgress, PretrainReport
from vitmae_search.training.pretraining.options import PRESETS, PretrainOptions, decoder_fields
from vitmae_search.training.pretraining.pretrain import model_config, pretrain

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
    "decoder_fields",
    "finetune",
    "is_main_process",
    "load_classifier",
    "model_config",
    "pretrain",
]
