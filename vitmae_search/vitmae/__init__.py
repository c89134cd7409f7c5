"""The model: a ViTMAE in plain torch, with the names, fields and outputs of the reference in transformers.

It knows nothing of photos, plugins or search. `config` has the architectures; `layers`, `masking`, `loss` and
`pooling` the arithmetic; `modeling` and `modeling_vit` the models, and `pretrained` their base class;
`image_processor` turns images into pixel values; `checkpoint` reads and writes files; `reconstruction` fills
in removed patches of one image; `inspection` gives what the encoder computes on its way.
"""

from vitmae_search.vitmae.checkpoint.checkpoint import Checkpoint, LoadingInfo, read_checkpoint
from vitmae_search.vitmae.checkpoint.locate import CheckpointFiles, find_checkpoint
from vitmae_search.vitmae.config import AttentionImplementation, ViTConfig, ViTMAEConfig
from vitmae_search.vitmae.devices import choose_device, multiplies_in_bf16
from vitmae_search.vitmae.half_precision import convert_to_bf16
from vitmae_search.vitmae.image_processor import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AutoImageProcessor,
    BatchFeature,
    ViTImageProcessor,
)
from vitmae_search.vitmae.inspection import tokens_and_attention
from vitmae_search.vitmae.layers import patchify, unpatchify
from vitmae_search.vitmae.loss import classification_loss, reconstruction_loss
from vitmae_search.vitmae.modeling import (
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    ViTMAEDecoderOutput,
    ViTMAEForPreTraining,
    ViTMAEForPreTrainingOutput,
    ViTMAEModel,
    ViTMAEModelOutput,
    ViTMAEPreTrainedModel,
)
from vitmae_search.vitmae.modeling_vit import ViTForImageClassification, ViTModel, ViTPreTrainedModel
from vitmae_search.vitmae.pooling import Pooling, pool, pool_layers, pool_shares, pooled_width
from vitmae_search.vitmae.pretrained import NewParametersWarning, PreTrainedModel
from vitmae_search.vitmae.reconstruction import reconstruct

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AttentionImplementation",
    "AutoImageProcessor",
    "BaseModelOutputWithPooling",
    "BatchFeature",
    "Checkpoint",
    "CheckpointFiles",
    "ImageClassifierOutput",
    "LoadingInfo",
    "NewParametersWarning",
    "Pooling",
    "PreTrainedModel",
    "ViTConfig",
    "ViTForImageClassification",
    "ViTImageProcessor",
    "ViTMAEConfig",
    "ViTMAEDecoderOutput",
    "ViTMAEForPreTraining",
    "ViTMAEForPreTrainingOutput",
    "ViTMAEModel",
    "ViTMAEModelOutput",
    "ViTMAEPreTrainedModel",
    "ViTModel",
    "ViTPreTrainedModel",
    "choose_device",
    "classification_loss",
    "convert_to_bf16",
    "find_checkpoint",
    "multiplies_in_bf16",
    "patchify",
    "pool",
    "pool_layers",
    "pool_shares",
    "pooled_width",
    "read_checkpoint",
    "reconstruct",
    "reconstruction_loss",
    "tokens_and_attention",
    "unpatchify",
]
