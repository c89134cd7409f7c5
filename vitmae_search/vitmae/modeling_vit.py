"""The ViT (arXiv 2010.11929) after pretraining: `ViTModel` and `ViTForImageClassification`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vitmae_search.vitmae.config import AttentionImplementation, ViTConfig, activation_function
from vitmae_search.vitmae.layers import init_linears, run_layers
from vitmae_search.vitmae.loss import classification_loss
from vitmae_search.vitmae.modeling import (
    BaseModelOutputWithPooling,
    Embeddings,
    EncoderModel,
    ImageClassifierOutput,
)
from vitmae_search.vitmae.pretrained import PreTrainedModel


class Pooler(nn.Module):
    """A linear map of the CLS token, followed by an activation."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.pooler_output_size or config.hidden_size)
        self.activation = activation_function(config.pooler_act)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool tokens (N, T, D), CLS first, to (N, pooler_output_size)."""
        return self.activation(self.dense(tokens[:, 0]))


class ViTPreTrainedModel(PreTrainedModel):
    """The base class of ViT models: for a head of your own, as `ViTMAEPreTrainedModel`."""

    config: ViTConfig
    config_class = ViTConfig
    base_model_prefix = "vit"


class ViTModel(EncoderModel, ViTPreTrainedModel):
    """A ViT encoder, with a pooler on the CLS token.

    A ViTMAE's weights fit; the pooler is then newly made. Positions are trained, as in the reference.
    """

    newly_made = ("vit.pooler.",)
    init_options = ("add_pooling_layer",)

    def __init__(
        self,
        config: ViTConfig,
        add_pooling_layer: bool = True,
        *,
        attn_implementation: AttentionImplementation | None = None,
    ) -> None:
        """Make a model with new weights.

        Args:
            config: The configuration.
            add_pooling_layer: Have a pooler. `from_pretrained` takes this argument too.
            attn_implementation: "sdpa" or "eager"; None is what the configuration says.
        """
        super().__init__(
            config, lambda: Embeddings(config, train_positions=True, dropout=config.hidden_dropout_prob)
        )
        self.pooler = Pooler(config) if add_pooling_layer else None
        init_linears(self)
        self.post_init(attn_implementation)

    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool = False,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode whole images.

        Args:
            pixel_values: (N, C, H, W), normalised.
            interpolate_pos_encoding: Take images of any size that patches tile, with stretched positions.
            output_hidden_states: Return all hidden states; None is what the configuration says.
            output_attentions: Return attention weights, which need "eager" attention; None as above.
            return_dict: Return an output object; with False a tuple of its fields that are not None; None as
                above.

        Returns:
            A `BaseModelOutputWithPooling`, or a tuple.

        Raises:
            ValueError: Images of another shape.
            ConfigError: Attention weights without "eager" attention.
        """
        tokens, states, attentions = run_layers(
            self.encoder.layer,
            self.embeddings(pixel_values, interpolate_pos_encoding),
            output_hidden_states=self._or_configured("output_hidden_states", output_hidden_states),
            output_attentions=self._or_configured("output_attentions", output_attentions),
        )
        tokens = self.layernorm(tokens)
        pooled = self.pooler(tokens) if self.pooler is not None else None
        output = BaseModelOutputWithPooling(tokens, pooled, states, attentions)
        return output if self._or_configured("return_dict", return_dict) else output.to_tuple()


class ViTForImageClassification(ViTPreTrainedModel):
    """A ViT encoder and a linear map of its CLS token to `config.num_labels` logits.

    A ViTMAE's checkpoint gives the encoder; the classifier is then newly made, and the decoder unused. With
    `config.global_pool="avg"` the linear map is of the mean of the patch tokens after `fc_norm`, as in the
    authors' fine-tuning with `--global_pool` (`models_vit.py`) and in timm, and the encoder has no norm of
    its own: `last_hidden_state` is what the last layer gives.

    Example:
        >>> import torch
        >>> sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> config = ViTConfig(**sizes, image_size=32, patch_size=8, id2label={0: "cat", 1: "dog", 2: "owl"})
        >>> model = ViTForImageClassification(config)
        >>> output = model(torch.rand(2, 3, 32, 32), labels=torch.tensor([0, 2]))
        >>> output.logits.shape, output.loss.ndim
        (torch.Size([2, 3]), 0)
    """

    newly_made = ("classifier.", "fc_norm.")

    def __init__(
        self, config: ViTConfig, *, attn_implementation: AttentionImplementation | None = None
    ) -> None:
        """Make a model with new weights.

        Args:
            config: The configuration.
            attn_implementation: "sdpa" or "eager"; None is what the configuration says.
        """
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.fc_norm: nn.LayerNorm | None = None
        if config.global_pool == "avg":
            self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.vit.layernorm = nn.Identity()
        self.classifier = nn.Linear(config.hidden_size, self.num_labels) if self.num_labels else nn.Identity()
        self._init_classifier()
        self.post_init(attn_implementation)

    def init_weights(self) -> None:
        """As the base class; the classifier's weights are drawn from N(0, initializer_range²), cut off."""
        super().init_weights()
        self._init_classifier()

    def _init_classifier(self) -> None:
        if isinstance(self.classifier, nn.Linear) and not self.classifier.weight.is_meta:
            nn.init.trunc_normal_(self.classifier.weight, std=self.config.initializer_range)
            nn.init.zeros_(self.classifier.bias)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify whole images.

        Args:
            pixel_values: (N, C, H, W), normalised.
            labels: As for `loss.classification_loss`; None computes no loss.
            interpolate_pos_encoding: Take images of any size that patches tile, with stretched positions.
            output_hidden_states: Return all hidden states; None is what the configuration says.
            output_attentions: Return attention weights, which need "eager" attention; None as above.
            return_dict: Return an output object; with False a tuple of its fields that are not None; None as
                above.

        Returns:
            An `ImageClassifierOutput`, or a tuple.

        Raises:
            ValueError: Images of another shape.
            ConfigError: Attention weights without "eager" attention, or another problem type.
        """
        encoded: BaseModelOutputWithPooling = self.vit(
            pixel_values,
            interpolate_pos_encoding,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        assert encoded.last_hidden_state is not None
        logits = self.classifier(self._pool(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type)
        output = ImageClassifierOutput(loss, logits, encoded.hidden_states, encoded.attentions)
        return output if self._or_configured("return_dict", return_dict) else output.to_tuple()

    def _pool(self, tokens: Tensor) -> Tensor:
        """(N, 1 + L, D), CLS first, to what the classifier reads, (N, D)."""
        return tokens[:, 0] if self.fc_norm is None else self.fc_norm(tokens[:, 1:].mean(dim=1))
