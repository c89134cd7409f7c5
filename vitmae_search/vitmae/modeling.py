"""The masked autoencoder (arXiv 2111.06377): `ViTMAEModel` and `ViTMAEForPreTraining`, and their parts.

Shapes: N images of C channels and H × W pixels; L patches of ph × pw pixels, of which K are kept; tokens of
width D, the CLS token first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._pytree import MappingKey, register_pytree_node

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.config import AttentionImplementation, EncoderConfig, ViTMAEConfig
from vitmae_search.vitmae.layers import (
    Layer,
    LayerShape,
    grid_of,
    init_linears,
    interpolate_grid,
    interpolate_sequence,
    patchify,
    run_layer,
    run_layers,
    sincos_positions,
    unpatchify,
)
from vitmae_search.vitmae.loss import reconstruction_loss
from vitmae_search.vitmae.masking import Masking, keep_all, mask_by_choice, mask_by_noise, take_patches
from vitmae_search.vitmae.pretrained import PreTrainedModel


class ModelOutput(OrderedDict[str, Any]):
    """A model's output: a dataclass, a dict of those fields that are not None, and a tuple of them.

    `out.logits`, `out["logits"]` and `out[1]` are the same tensor; slices give tuples, and `**out` works.
    As in the reference, entries cannot be removed. Subclasses are dataclasses whose fields default to None;
    a dict, or a sequence of pairs, may stand in the place of the first field. They are registered with
    torch's pytrees, so that `torch.export`, `torch.vmap` and DistributedDataParallel look into them.
    """

    def __init_subclass__(cls) -> None:
        register_pytree_node(
            cls,
            _flatten_output,
            partial(_unflatten_output, cls),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=_flatten_output_with_keys,
        )

    def __post_init__(self) -> None:
        first = fields(self)[0].name  # type: ignore[arg-type]
        pairs = _name_value_pairs(getattr(self, first))
        if pairs is not None:
            setattr(self, first, None)
            for name, value in pairs:
                setattr(self, name, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in their order."""
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None and name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            super().__setitem__(name, value)
        elif name in self:
            super().__delitem__(name)
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        names = self.__dataclass_fields__  # type: ignore[attr-defined]
        return type(self), tuple(getattr(self, name) for name in names)

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(f"entries of {type(self).__name__} cannot be removed, nor set but one by one")

    __delitem__ = pop = popitem = setdefault = update = clear = _refuse


def _name_value_pairs(value: Any) -> list[tuple[str, Any]] | None:
    """The items of a dict or of a sequence of pairs of a name and a value; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    if not isinstance(value, list | tuple | Iterator):
        return None
    items = list(value)
    are_pairs = all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items)
    return items if items and are_pairs else None


def _flatten_output(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output.keys())


def _flatten_output_with_keys(output: ModelOutput) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(MappingKey(name), value) for name, value in output.items()], list(output.keys())


def _unflatten_output(cls: type[ModelOutput], values: Iterable[Any], names: list[str]) -> ModelOutput:
    return cls(**dict(zip(names, values, strict=True)))


@dataclass
class ViTMAEModelOutput(ModelOutput):
    """The output of `ViTMAEModel`.

    Attributes:
        last_hidden_state: (N, 1 + K, D), after the final layer norm.
        mask: (N, L) float32 in patch order, 1 = removed.
        ids_restore: (N, L) int64; sorts the sequence "kept, then removed" back into patch order.
        hidden_states: The embeddings and each layer's output, (N, 1 + K, D) each; the last one is taken
            before the final layer norm.
        attentions: The weights of each layer, (N, heads, 1 + K, 1 + K).
    """

    last_hidden_state: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ViTMAEDecoderOutput(ModelOutput):
    """The output of `ViTMAEDecoder`.

    Attributes:
        logits: Pixel values of every patch in patch order, kept ones included, (N, L, ph·pw·C).
        hidden_states: The decoder's, (N, 1 + L, decoder_hidden_size) each.
        attentions: The decoder's, (N, heads, 1 + L, 1 + L) each.
    """

    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ViTMAEForPreTrainingOutput(ModelOutput):
    """The output of `ViTMAEForPreTraining`.

    Attributes:
        loss: A scalar; None where no patch is removed.
        logits: Pixel values of every patch in patch order, (N, L, ph·pw·C).
        mask: As in `ViTMAEModelOutput`.
        ids_restore: As in `ViTMAEModelOutput`.
        hidden_states: The encoder's.
        attentions: The encoder's.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class BaseModelOutputWithPooling(ModelOutput):
    """The output of `ViTModel`.

    Attributes:
        last_hidden_state: (N, 1 + L, D), after the final layer norm.
        pooler_output: The CLS token after the pooler, (N, pooler_output_size).
        hidden_states: The embeddings and each layer's output, (N, 1 + L, D) each.
        attentions: The weights of each layer, (N, heads, 1 + L, 1 + L).
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ImageClassifierOutput(ModelOutput):
    """The output of `ViTForImageClassification`.

    Attributes:
        loss: A scalar; None without labels.
        logits: (N, num_labels).
        hidden_states: As in `BaseModelOutputWithPooling`.
        attentions: As in `BaseModelOutputWithPooling`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def join_tokens(patches: Tensor, positions: Tensor, cls_token: Tensor) -> Tensor:
    """Add positions to patches and to the CLS token, and put that first.

    Args:
        patches: (N, L, D).
        positions: (1, 1 + L, D).
        cls_token: (1, 1, D).

    Returns:
        (N, 1 + L, D).
    """
    return _cls_first(cls_token + positions[:, :1], patches + positions[:, 1:])


def _cls_first(cls_token: Tensor, patches: Tensor) -> Tensor:
    """(1, 1, D) and (N, K, D) to (N, 1 + K, D)."""
    return torch.cat([cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1)


class PatchEmbeddings(nn.Module):
    """A linear map of each patch's pixels, as a convolution whose stride is the patch."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        patch = config.patch_shape
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, patch, stride=patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed the patches of images: (N, C, H, W) to (N, L, D), row by row.

        Raises `ValueError` for pixels of another shape.
        """
        channels = self.projection.in_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(f"pixel_values must be (N, {channels}, H, W), not {tuple(pixel_values.shape)}")
        planes: Tensor = self.projection(pixel_values.to(self.projection.weight.dtype))  # (N, D, gh, gw)
        return planes.flatten(2).transpose(1, 2)  # (N, L, D)


class Embeddings(nn.Module):
    """The embeddings of a ViT: patches with their positions, and the CLS token before them."""

    position_embeddings: Tensor

    def __init__(self, config: EncoderConfig, *, train_positions: bool = False, dropout: float = 0.0) -> None:
        """Make the embeddings.

        Args:
            config: Of the encoder.
            train_positions: Make the position table a parameter, as a ViT's; else it is a buffer, saved with
                the model and never trained.
            dropout: Dropout of the embedded tokens.
        """
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(dropout)
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        table = torch.empty(1, 1 + config.num_patches, config.hidden_size)
        if train_positions:
            self.position_embeddings = nn.Parameter(table)
        else:
            self.register_buffer("position_embeddings", table)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the CLS token from N(0, initializer_range²) and Xavier weights; fill in the position table."""
        if not self.position_embeddings.is_meta:
            table = sincos_positions(self.config.grid_size, self.config.hidden_size)
            self.position_embeddings.copy_(table)
        if self.cls_token.is_meta:  # drawing does nothing there, and imports torch's compiler, for seconds
            return
        nn.init.normal_(self.cls_token, std=self.config.initializer_range)
        projection = self.patch_embeddings.projection
        nn.init.xavier_uniform_(projection.weight.flatten(1))  # (D, C·ph·pw): as the linear map that it is
        nn.init.zeros_(projection.bias)  # type: ignore[arg-type]

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Embed whole images.

        Args:
            pixel_values: (N, C, H, W), normalised.
            interpolate_pos_encoding: Take images of any size that patches tile, with stretched positions.

        Returns:
            Tokens (N, 1 + L, D), CLS first.

        Raises:
            ValueError: Images of another shape.
        """
        positions = self._positions(pixel_values, interpolate_pos_encoding)
        tokens = join_tokens(self.patch_embeddings(pixel_values), positions, self.cls_token)
        embedded: Tensor = self.dropout(tokens)
        return embedded

    def _positions(self, pixel_values: Tensor, interpolate: bool) -> Tensor:
        """The table of an image's size, (1, 1 + L, D)."""
        height, width = pixel_values.shape[-2:]
        if (height, width) == self.config.image_shape:
            return self.position_embeddings
        if not interpolate:
            expected = "×".join([str(side) for side in self.config.image_shape])
            raise ValueError(
                f"the image has {height}×{width} pixels and the model {expected}; "
                "resize it, or pass interpolate_pos_encoding=True"
            )
        grid = grid_of(height, width, self.config.patch_size)
        return interpolate_grid(self.position_embeddings, self.config.grid_size, grid)


class ViTMAEEmbeddings(Embeddings):
    """The embeddings of a ViTMAE, which remove patches."""

    config: ViTMAEConfig

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        mask: Tensor | None = None,
        mask_ratio: float | None = None,
        keep_order: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embed images and remove patches; the arguments are those of `ViTMAEModel.forward`.

        Args:
            pixel_values: (N, C, H, W), normalised.
            noise: (N, L); the patches with the lowest values are kept. None draws it.
            interpolate_pos_encoding: Take images of any size that patches tile, with stretched positions.
            mask: (N, L) bool, True = removed; decides instead of noise.
            mask_ratio: Replaces the configuration's.
            keep_order: Keep patches in their order where none is removed.

        Returns:
            Tokens (N, 1 + K, D), CLS first; mask (N, L) float32, 1 = removed; ids_restore (N, L) int64.

        Raises:
            ValueError: Images, noise or a mask of another shape.
            ConfigError: A mask ratio outside [0, 1).
        """
        positions = self._positions(pixel_values, interpolate_pos_encoding)
        patches: Tensor = self.patch_embeddings(pixel_values)
        masking = self._masking(patches, noise, mask, mask_ratio, keep_order)
        if masking.in_order:
            tokens = join_tokens(patches, positions, self.cls_token)
        else:
            kept = take_patches(patches + positions[:, 1:], masking.ids_keep)
            tokens = _cls_first(self.cls_token + positions[:, :1], kept)
        return tokens, masking.mask, masking.ids_restore

    def _masking(
        self,
        patches: Tensor,
        noise: Tensor | None,
        mask: Tensor | None,
        mask_ratio: float | None,
        keep_order: bool,
    ) -> Masking:
        """Choose the patches (N, L, D) to keep, by the arguments of `forward`."""
        batch, count = patches.shape[:2]
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        given = mask if mask is not None else noise
        if given is not None and given.shape != (batch, count):
            raise ValueError(f"noise and mask must be ({batch}, {count}), not {tuple(given.shape)}")
        if mask is not None:
            if mask.dtype != torch.bool:
                raise ValueError(f"mask must be bool, True where a patch is removed, not {mask.dtype}")
            return mask_by_choice(mask.to(patches.device))
        if ratio == 0 and keep_order:
            return keep_all(batch, count, patches.device)
        if noise is None:
            noise = torch.rand(batch, count, device=patches.device)
        return mask_by_noise(noise.to(patches.device), ratio, keep_order=keep_order)


class Encoder(nn.Module):
    """The stack of an encoder's layers, which the hub's checkpoints name `layer`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        shape = LayerShape.encoder(config)
        self.layer = nn.ModuleList(Layer(shape) for _ in range(config.num_hidden_layers))

    def states(self, tokens: Tensor, depth: int) -> Iterator[Tensor]:
        """Run the first layers, one at a time.

        Args:
            tokens: (N, T, D).
            depth: How many layers are run.

        Yields:
            The tokens (N, T, D) after each layer.
        """
        for layer in islice(self.layer, depth):
            tokens, _ = run_layer(layer, tokens)
            yield tokens


class ViTMAEPreTrainedModel(PreTrainedModel):
    """The base class of ViTMAE models: for a head of your own, as in the reference.

    A subclass makes `self.vit = ViTMAEModel(config)` and its head; `from_pretrained` then loads the encoder
    and newly makes the head.
    """

    config: ViTMAEConfig
    config_class = ViTMAEConfig
    base_model_prefix = "vit"


class EncoderModel(PreTrainedModel):
    """Embeddings, layers and a final norm: the base class of `ViTMAEModel` and `ViTModel`."""

    state_prefix = "vit."

    def __init__(self, config: EncoderConfig, make_embeddings: Callable[[], Embeddings]) -> None:
        """Make an encoder.

        Args:
            config: The configuration.
            make_embeddings: Called once the configuration was checked.
        """
        super().__init__(config)
        self.embeddings = make_embeddings()
        self.encoder = Encoder(config)
        self.layernorm: nn.Module = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def encode(
        self, pixel_values: Tensor, layers: Sequence[int], *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, ...]:
        """Encode whole images, and take the hidden states after some of the layers.

        Nothing is removed, shuffled or drawn, and no layer runs beyond the highest one that is wanted.

        Args:
            pixel_values: (N, C, H, W), normalised.
            layers: Numbers of layers. 0 is the embeddings; the last, `config.num_hidden_layers`, is taken
                after the final layer norm, as `last_hidden_state` is.
            interpolate_pos_encoding: Take images of any size that patches tile.

        Returns:
            One (N, 1 + L, D) for each of `layers`, in their order, CLS first.

        Raises:
            ConfigError: A layer that the encoder has not.
            ValueError: Images of another shape.
        """
        depth = self.config.num_hidden_layers
        if not layers or any(not 0 <= layer <= depth for layer in layers):
            raise ConfigError("layers", tuple(layers), f"must be layers from 0 to {depth}")
        tokens = self._embed(pixel_values, interpolate_pos_encoding)
        after = enumerate(self.encoder.states(tokens, max(layers)), start=1)
        states = {0: tokens}
        states.update((number, state) for number, state in after if number in layers)
        if depth in layers:
            states[depth] = self.layernorm(states[depth])
        return tuple(states[layer] for layer in layers)

    def _embed(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> Tensor:
        """Tokens of whole images, (N, 1 + L, D), CLS first."""
        tokens: Tensor = self.embeddings(pixel_values, interpolate_pos_encoding)
        return tokens

    def feature_maps(
        self, pixel_values: Tensor, layers: Sequence[int], *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, ...]:
        """Take patch tokens after some of the layers as planes, for dense heads.

        Args:
            pixel_values: (N, C, H, W), normalised.
            layers: Numbers of layers, as for `encode`.
            interpolate_pos_encoding: Take images of any size that patches tile.

        Returns:
            One (N, D, gh, gw) for each of `layers`; rows and columns are the image's own.

        Raises:
            ConfigError: A layer that the encoder has not.
            ValueError: Images of another shape.
        """
        grid = grid_of(pixel_values.shape[2], pixel_values.shape[3], self.config.patch_size)
        states = self.encode(pixel_values, layers, interpolate_pos_encoding=interpolate_pos_encoding)
        planes = (state[:, 1:].transpose(1, 2) for state in states)  # (N, D, L)
        return tuple(plane.reshape(*plane.shape[:2], *grid) for plane in planes)


class ViTMAEModel(EncoderModel, ViTMAEPreTrainedModel):
    """The encoder of a masked autoencoder.

    `forward` removes patches, as in pretraining; `encode` sees whole images, and is what embeddings are made
    from.

    Example:
        >>> sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> model = ViTMAEModel(ViTMAEConfig(**sizes, image_size=32, patch_size=8)).eval()
        >>> pixel_values = torch.zeros(1, 3, 32, 32)
        >>> model(pixel_values).last_hidden_state.shape  # CLS and a quarter of 16 patches
        torch.Size([1, 5, 32])
        >>> [state.shape[1] for state in model.encode(pixel_values, [1, 2])]  # CLS and all patches
        [17, 17]
    """

    def __init__(
        self, config: ViTMAEConfig, *, attn_implementation: AttentionImplementation | None = None
    ) -> None:
        """Make a model with new weights.

        Args:
            config: The configuration.
            attn_implementation: "sdpa" or "eager"; None is what the configuration says.
        """
        super().__init__(config, lambda: ViTMAEEmbeddings(config))
        init_linears(self)
        self.post_init(attn_implementation)

    def forward(
        self,
        pixel_values: Tensor,
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        mask: Tensor | None = None,
        mask_ratio: float | None = None,
        keep_order: bool = True,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Remove patches, and encode the others.

        Args:
            pixel_values: (N, C, H, W), normalised.
            noise: (N, L); the patches with the lowest values are kept. None draws it from [0, 1).
            interpolate_pos_encoding: Take images of any size that patches tile, with stretched positions.
            mask: (N, L) bool, True = removed, equally many in each image; decides instead of noise.
            mask_ratio: Share of patches to remove, 0 ≤ r < 1; None is the configuration's.
            keep_order: Where nothing is removed, keep patches in their order; with False they are shuffled by
                the noise, as in the reference.
            output_hidden_states: Return all hidden states; None is what the configuration says.
            output_attentions: Return attention weights, which need "eager" attention; None as above.
            return_dict: Return an output object; with False a tuple of its fields that are not None; None as
                above.

        Returns:
            A `ViTMAEModelOutput`, or a tuple.

        Raises:
            ValueError: Images, noise or a mask of another shape.
            ConfigError: A mask ratio outside [0, 1), or attention weights without "eager" attention.
        """
        embedded, mask, ids_restore = self.embeddings(
            pixel_values,
            noise,
            bool(interpolate_pos_encoding),
            mask=mask,
            mask_ratio=mask_ratio,
            keep_order=keep_order,
        )
        tokens, states, attentions = run_layers(
            self.encoder.layer,
            embedded,
            output_hidden_states=self._or_configured("output_hidden_states", output_hidden_states),
            output_attentions=self._or_configured("output_attentions", output_attentions),
        )
        output = ViTMAEModelOutput(self.layernorm(tokens), mask, ids_restore, states, attentions)
        return output if self._or_configured("return_dict", return_dict) else output.to_tuple()

    def _embed(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> Tensor:
        tokens: Tensor = self.embeddings(pixel_values, None, interpolate_pos_encoding, mask_ratio=0.0)[0]
        return tokens


DecoderInterpolation = Literal["sequence", "grid"]
"""How the decoder's positions are stretched to another image size.

"sequence" does it along the flattened sequence, as the reference; "grid" over rows and columns.
"""


class ViTMAEDecoder(nn.Module):
    """The decoder: mask tokens in place of removed patches, a small transformer, and a linear map to pixels.

    Its position table is a buffer: it is saved with the model, and never trained.
    """

    decoder_pos_embed: Tensor

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        self.config = config
        self.decoder_embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("decoder_pos_embed", torch.empty(1, 1 + config.num_patches, width))
        self.reset_parameters()
        shape = LayerShape.decoder(config)
        self.decoder_layers = nn.ModuleList(Layer(shape) for _ in range(config.decoder_num_hidden_layers))
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder_pred = nn.Linear(width, math.prod(config.patch_shape) * config.num_channels)
        init_linears(self)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the mask token from N(0, initializer_range²); fill in the position table."""
        if not self.decoder_pos_embed.is_meta:
            table = sincos_positions(self.config.grid_size, self.config.decoder_hidden_size)
            self.decoder_pos_embed.copy_(table)
        if not self.mask_token.is_meta:  # as in `Embeddings.reset_parameters`
            nn.init.normal_(self.mask_token, std=self.config.initializer_range)

    def forward(
        self,
        hidden_states: Tensor,
        ids_restore: Tensor,
        grid_size: tuple[int, int] | None = None,
        *,
        interpolation: DecoderInterpolation = "sequence",
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ViTMAEDecoderOutput:
        """Predict the pixels of every patch.

        Args:
            hidden_states: The encoder's last hidden state, (N, 1 + K, D), CLS first.
            ids_restore: (N, L) int64.
            grid_size: The image's grid (gh, gw); None is the configuration's.
            interpolation: How positions are stretched to another grid than the configuration's.
            output_hidden_states: Return the decoder's hidden states.
            output_attentions: Return the decoder's attention weights, which need "eager" attention.
        """
        tokens = self._restore(self.decoder_embed(hidden_states), ids_restore)
        tokens = tokens + self._positions(grid_size or self.config.grid_size, interpolation)
        tokens, states, attentions = run_layers(
            self.decoder_layers,
            tokens,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        logits = self.decoder_pred(self.decoder_norm(tokens))
        return ViTMAEDecoderOutput(logits[:, 1:], states, attentions)

    def _restore(self, tokens: Tensor, ids_restore: Tensor) -> Tensor:
        """Put patches back in order, with mask tokens for removed ones: (N, 1 + K, D) to (N, 1 + L, D)."""
        batch, length = ids_restore.shape
        removed = length + 1 - tokens.shape[1]
        mask_tokens = self.mask_token.to(tokens.dtype).expand(batch, removed, -1)
        shuffled = torch.cat([tokens[:, 1:], mask_tokens], dim=1)  # (N, L, D): kept, then removed
        return torch.cat([tokens[:, :1], take_patches(shuffled, ids_restore)], dim=1)

    def _positions(self, grid: tuple[int, int], interpolation: DecoderInterpolation) -> Tensor:
        """The table of a grid, (1, 1 + gh·gw, D)."""
        if interpolation == "grid":
            return interpolate_grid(self.decoder_pos_embed, self.config.grid_size, grid)
        return interpolate_sequence(self.decoder_pos_embed, grid[0] * grid[1])


class ViTMAEForPreTraining(ViTMAEPreTrainedModel):
    """Encoder and decoder, trained to fill in removed patches.

    Example:
        >>> sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> model = ViTMAEForPreTraining(ViTMAEConfig(**sizes, image_size=32, patch_size=8))
        >>> output = model(torch.rand(2, 3, 32, 32))
        >>> list(output), output.logits.shape, int(output.mask[0].sum())
        (['loss', 'logits', 'mask', 'ids_restore'], torch.Size([2, 16, 192]), 12)
        >>> model.unpatchify(output.logits).shape
        torch.Size([2, 3, 32, 32])
    """

    newly_made = ("decoder.",)

    def __init__(
        self, config: ViTMAEConfig, *, attn_implementation: AttentionImplementation | None = None
    ) -> None:
        """Make a model with new weights.

        Args:
            config: The configuration.
            attn_implementation: "sdpa" or "eager"; None is what the configuration says.
        """
        super().__init__(config)
        self.vit = ViTMAEModel(config)
        self.decoder = ViTMAEDecoder(config)
        self.post_init(attn_implementation)

    def forward(
        self,
        pixel_values: Tensor,
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        mask: Tensor | None = None,
        mask_ratio: float | None = None,
        keep_order: bool = True,
        decoder_interpolation: DecoderInterpolation = "sequence",
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Remove patches, encode the others, and predict all of them.

        Args:
            pixel_values: (N, C, H, W), normalised.
            noise: (N, L); the patches with the lowest values are kept. None draws it from [0, 1).
            interpolate_pos_encoding: Take images of any size that patches tile, with stretched positions.
            mask: (N, L) bool, True = removed, equally many in each image; decides instead of noise.
            mask_ratio: Share of patches to remove, 0 ≤ r < 1; None is the configuration's.
            keep_order: Where nothing is removed, keep patches in their order; with False they are shuffled by
                the noise, as in the reference.
            decoder_interpolation: How the decoder's positions are stretched to another image size.
            output_hidden_states: Return all hidden states; None is what the configuration says.
            output_attentions: Return attention weights, which need "eager" attention; None as above.
            return_dict: Return an output object; with False a tuple of its fields that are not None; None as
                above.

        Returns:
            A `ViTMAEForPreTrainingOutput`, or a tuple. It has no loss where no patch is removed.

        Raises:
            ValueError: Images, noise or a mask of another shape.
            ConfigError: A mask ratio outside [0, 1), or attention weights without "eager" attention.
        """
        encoded: ViTMAEModelOutput = self.vit(
            pixel_values,
            noise,
            interpolate_pos_encoding,
            mask=mask,
            mask_ratio=mask_ratio,
            keep_order=keep_order,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        assert encoded.last_hidden_state is not None
        assert encoded.mask is not None
        grid = grid_of(pixel_values.shape[2], pixel_values.shape[3], self.config.patch_size)
        logits = self.decoder(
            encoded.last_hidden_state, encoded.ids_restore, grid, interpolation=decoder_interpolation
        ).logits
        complete = encoded.last_hidden_state.shape[1] == 1 + logits.shape[1]
        output = ViTMAEForPreTrainingOutput(
            loss=None if complete else self.forward_loss(pixel_values, logits, encoded.mask, True),
            logits=logits,
            mask=encoded.mask,
            ids_restore=encoded.ids_restore,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if self._or_configured("return_dict", return_dict) else output.to_tuple()

    def forward_loss(
        self, pixel_values: Tensor, logits: Tensor, mask: Tensor, interpolate_pos_encoding: bool = False
    ) -> Tensor:
        """Compute the pretraining loss, a scalar (`loss.reconstruction_loss`).

        Args:
            pixel_values: The model's input, (N, C, H, W).
            logits: Its predictions, (N, L, ph·pw·C).
            mask: (N, L), 1 = removed.
            interpolate_pos_encoding: As for `patchify`.
        """
        patches = self.patchify(pixel_values, interpolate_pos_encoding)
        return reconstruction_loss(logits, patches, mask, norm_pix_loss=self.config.norm_pix_loss)

    def patchify(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Cut images into patches (`layers.patchify`).

        Args:
            pixel_values: (N, C, H, W).
            interpolate_pos_encoding: Take images that are neither square nor of the model's size.

        Returns:
            (N, L, ph·pw·C).

        Raises:
            ValueError: Another number of channels, an image that patches do not tile, or one that needs
                `interpolate_pos_encoding`.
        """
        channels, height, width = pixel_values.shape[1:]
        if channels != self.config.num_channels:
            raise ValueError(f"the image has {channels} channels and the model {self.config.num_channels}")
        expected = height == width or (height, width) == self.config.image_shape
        if not (interpolate_pos_encoding or expected):
            raise ValueError(
                f"an image of {height}×{width} pixels is not square; pass interpolate_pos_encoding=True"
            )
        return patchify(pixel_values, self.config.patch_size)

    def unpatchify(self, patches: Tensor, original_image_size: tuple[int, int] | None = None) -> Tensor:
        """Put patches together to images (`layers.unpatchify`).

        Args:
            patches: (N, L, ph·pw·C).
            original_image_size: The image's (H, W); None is the configuration's.

        Returns:
            (N, C, H, W).

        Raises:
            ValueError: L is not that image's number of patches.
        """
        height, width = original_image_size or self.config.image_shape
        patch_size = self.config.patch_size
        return unpatchify(patches, patch_size, grid_of(height, width, patch_size))
