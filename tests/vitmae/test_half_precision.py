"""An encoder in bf16 equals its encoder to bf16's rounding, and its weights are once in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vitmae_search.bundled import bundled
from vitmae_search.vitmae import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEModel,
    convert_to_bf16,
    pool_layers,
)
from vitmae_search.vitmae.config import activation_function

PIXELS = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
EVERYWHERE = pytest.mark.parametrize(
    "place", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)
FIELDS: list[dict[str, Any]] = [
    {},
    {"hidden_act": "relu"},
    {"hidden_act": "gelu_new"},
    {"qkv_bias": False},
    {"patch_size": (8, 16)},
    {"hidden_size": 36, "num_attention_heads": 4, "intermediate_size": 50},
]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def pair(tiny: Any, randomise: Any) -> Callable[..., tuple[ViTMAEModel, ViTMAEModel]]:
    """The same encoder twice, on the CPU in fp32 and in bf16 on a device."""

    def make(place: torch.device, **fields: Any) -> tuple[ViTMAEModel, ViTMAEModel]:
        plain, packed = (randomise(ViTMAEModel(ViTMAEConfig(**tiny(**fields)))) for _ in range(2))
        convert_to_bf16(packed)
        packed.to(place)
        return plain, packed

    return make


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return functional.cosine_similarity(a.cpu().double(), b.cpu().double(), dim=-1)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@EVERYWHERE
@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_every_layer_is_what_it_was(pair, place: torch.device, fields: dict[str, Any]) -> None:
    plain, packed = pair(place, **fields)
    expected, found = plain.encode(PIXELS, (0, 1, 2)), packed.encode(PIXELS.to(place), (0, 1, 2))
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        assert other.device.type == place.type
        assert other.shape == one.shape
        assert cosines(one, other).min() > 0.9995
        assert not torch.equal(one, other.cpu())


@EVERYWHERE
def test_a_layer_is_the_same_whatever_others_are_asked_for(pair, place: torch.device) -> None:
    _, packed = pair(place, num_hidden_layers=3)
    pixels = PIXELS.to(place)
    together = packed.encode(pixels, (0, 1, 2, 3))
    for layer in range(4):
        assert torch.equal(packed.encode(pixels, (layer,))[0], together[layer])


@EVERYWHERE
def test_another_size_of_image_stretches_the_positions(pair, place: torch.device) -> None:
    plain, packed = pair(place)
    larger = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(2))
    expected = plain.encode(larger, (2,), interpolate_pos_encoding=True)[0]
    found = packed.encode(larger.to(place), (2,), interpolate_pos_encoding=True)[0]
    assert cosines(expected, found).min() > 0.9995
    with pytest.raises(ValueError, match="the model 32×32"):
        packed.encode(larger.to(place), (2,))


@EVERYWHERE
def test_a_classifier_s_encoder_too(tiny, randomise, place: torch.device) -> None:
    config = ViTConfig(**{k: v for k, v in tiny().items() if not k.startswith("decoder")}, num_labels=3)
    plain, packed = (randomise(ViTForImageClassification(config)) for _ in range(2))
    convert_to_bf16(packed.vit)
    packed.to(place)
    assert cosines(plain(PIXELS).logits, packed(PIXELS.to(place)).logits).min() > 0.999
    tokens = packed.vit(PIXELS.to(place)).last_hidden_state
    assert cosines(tokens, packed.vit.encode(PIXELS.to(place), (2,))[0]).min() > 0.9999


@EVERYWHERE
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_real_photos_with_real_weights(photos, place: torch.device, activation: str) -> None:
    folder = bundled("data") / "models" / "vitmae-tiny-patch8-64"
    plain, packed = (ViTMAEModel.from_pretrained(folder).eval() for _ in range(2))
    for layer in packed.encoder.layer:
        layer.activation = activation_function(activation)
    convert_to_bf16(packed)
    packed.to(place)
    looks = [photo.rotate(angle) for photo in photos.values() for angle in (0, 90)]
    pixels = ViTImageProcessor.from_pretrained(folder)(looks, return_tensors="pt")["pixel_values"]
    layers = (6, 12)
    expected, found = plain.encode(pixels, layers), packed.encode(pixels.to(place), layers)
    for pooling in ("cls", "mean", "moments"):
        one, other = (pool_layers(states, pooling) for states in (expected, found))
        assert cosines(one, other).min() > 0.9995


@EVERYWHERE
def test_fp32_weights_are_freed(pair, place: torch.device) -> None:
    plain, packed = pair(place)
    full = [(name, value) for name, value in packed.named_parameters() if value.dtype == torch.float32]
    assert {name for name, value in full if value.ndim > 1} == {"embeddings.cls_token"}
    assert sum(value.numel() for _, value in full) < 0.1 * sum(value.numel() for value in plain.parameters())
    whole = {name for name, value in packed.named_buffers() if value.dtype == torch.float32}
    assert whole == {"embeddings.position_embeddings"}


def test_it_can_be_moved(pair) -> None:
    _, packed = pair(torch.device("cpu"))
    packed.to("meta")
    assert {value.device.type for value in tensors_of(packed).values()} == {"meta"}
    for module in packed.modules():
        assert not [name for name, value in vars(module).items() if isinstance(value, Tensor)]


@pytest.mark.parametrize("place", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
def test_what_comes_back_to_the_device_gives_the_same(pair, place: torch.device) -> None:
    _, packed = pair(place)
    before = packed.encode(PIXELS.to(place), (2,))[0]
    packed.to("cpu")
    assert {value.device.type for value in tensors_of(packed).values()} == {"cpu"}
    assert cosines(packed.encode(PIXELS, (2,))[0], before).min() > 0.9995
    packed.to(place)
    assert torch.equal(packed.encode(PIXELS.to(place), (2,))[0], before)


class _Slices(TorchFunctionMode):
    """Slices by `narrow`: a torch without CUDA has no brackets for tensors that only pretend to be there."""

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.__getitem__:
            return func(*args, **(kwargs or {}))
        tensor, index = args
        for dim, part in enumerate(index):
            start, end, _ = part.indices(tensor.shape[dim])
            tensor = tensor.narrow(dim, start, end - start)
        return tensor


@pytest.mark.parametrize(
    "fields",
    [
        {},  # a ViT-B/16
        {
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 8,
        },
        {"hidden_size": 1280, "num_attention_heads": 16, "patch_size": 14},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"qkv_bias": False},
        {"hidden_size": 36, "num_attention_heads": 4, "intermediate_size": 50},
    ],
    ids=str,
)
def test_nothing_of_it_is_on_another_device_or_of_another_type(fields: dict[str, Any]) -> None:
    """Without a GPU: tensors that only have a shape, a type and a device, by torch's own rules for CUDA."""
    with torch.device("meta"):
        model = ViTMAEModel(ViTMAEConfig(**{"num_hidden_layers": 2, **fields}))
    convert_to_bf16(model)
    with FakeTensorMode(), _Slices():
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                held.update(
                    {
                        name: torch.empty_strided(
                            value.shape, value.stride(), dtype=value.dtype, device="cuda:0"
                        )
                        for name, value in held.items()
                        if value is not None
                    }
                )
        pixels = torch.empty(3, 3, *model.config.image_shape, device="cuda:0")
        for state in model.encode(pixels, (0, 1, 2)):
            assert state.shape == (3, 1 + model.config.num_patches, model.config.hidden_size)
            assert state.dtype == torch.float32
            assert str(state.device) == "cuda:0"
            assert state.is_contiguous()
