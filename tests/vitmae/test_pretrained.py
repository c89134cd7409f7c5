"""What models have of the reference's base class, `PreTrainedModel`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from torch import Tensor, nn

from vitmae_search.errors import CheckpointError, ConfigError, ModelNotFound
from vitmae_search.vitmae import (
    ImageClassifierOutput,
    NewParametersWarning,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTMAEPreTrainedModel,
    ViTModel,
    ViTPreTrainedModel,
)

Models = Callable[..., ViTMAEForPreTraining]
Pair = Callable[..., tuple[Any, Any]]
Pixels = Callable[[int, int], Tensor]
Tiny = Callable[..., dict[str, Any]]

CLASSES = ("ViTMAEModel", "ViTMAEForPreTraining", "ViTModel", "ViTForImageClassification")
EVERY_CLASS = pytest.mark.parametrize("name", CLASSES)


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def saved(random_model: Models, tmp_path: Path) -> tuple[ViTMAEForPreTraining, Path]:
    """A model, and the folder it was saved to."""
    model = random_model()
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


# From files


def test_arguments_without_effect_here(saved: tuple[Any, Path]) -> None:
    arguments: dict[str, Any] = {
        "cache_dir": None,
        "force_download": False,
        "local_files_only": False,
        "token": None,
        "revision": "main",
        "use_safetensors": True,
        "low_cpu_mem_usage": True,
        "trust_remote_code": False,
        "weights_only": True,
        "quantization_config": None,
        "output_loading_info": False,
        "ignore_mismatched_sizes": False,
        "variant": None,
        "dtype": torch.float32,
    }
    for kind in (ViTMAEForPreTraining, transformers.ViTMAEForPreTraining):
        model = kind.from_pretrained(pretrained_model_name_or_path=saved[1], **arguments)
        assert torch.equal(model.decoder.mask_token, saved[0].decoder.mask_token)


def test_a_subfolder(saved: tuple[Any, Path]) -> None:
    for kind in (ViTMAEForPreTraining, transformers.ViTMAEForPreTraining):
        model = kind.from_pretrained(saved[1].parent, subfolder="saved")
        assert torch.equal(model.decoder.mask_token, saved[0].decoder.mask_token)
    with pytest.raises(ModelNotFound, match="no such folder"):
        ViTMAEForPreTraining.from_pretrained(saved[1].parent, subfolder="gone")


def test_another_cache(random_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "elsewhere/models--someone--mae"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("a" * 40)
    model = random_model()
    model.save_pretrained(repository / "snapshots" / ("a" * 40))
    arguments: dict[str, Any] = {"cache_dir": tmp_path / "elsewhere", "token": False}
    assert same(ViTMAEForPreTraining.from_pretrained("someone/mae", **arguments), model)
    assert ViTMAEConfig.from_pretrained("someone/mae", **arguments) == model.config
    with pytest.raises(ModelNotFound, match="not in the local cache"):
        ViTMAEForPreTraining.from_pretrained(
            "someone/mae", cache_dir=tmp_path / "empty", local_files_only=True
        )


def test_only_safetensors_or_only_torch_files(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    with pytest.raises(ModelNotFound, match="no weights file"):
        ViTMAEForPreTraining.from_pretrained(folder, use_safetensors=False)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same(ViTMAEForPreTraining.from_pretrained(folder, use_safetensors=False), model)
    with pytest.raises(ModelNotFound, match="no weights file"):
        ViTMAEForPreTraining.from_pretrained(folder, use_safetensors=True)


def test_another_configuration(saved: tuple[Any, Path], tiny: Tiny, tmp_path: Path) -> None:
    config = ViTMAEConfig(**tiny(mask_ratio=0.5))
    config.save_pretrained(tmp_path / "other")
    for given in (config, tmp_path / "other", str(tmp_path / "other/config.json")):
        model = ViTMAEForPreTraining.from_pretrained(saved[1], config=given)
        assert model.config.mask_ratio == 0.5
        assert same(model, saved[0])
    assert ViTMAEForPreTraining.from_pretrained(saved[1], config=config).config is not config
    assert config.dtype is None


@EVERY_CLASS
def test_weights_in_memory(name: str, pair: Pair) -> None:
    ours, reference = pair(name)
    for kind, model in ((type(ours), ours), (getattr(transformers, name), reference)):
        again = kind.from_pretrained(None, config=model.config, state_dict=model.state_dict())
        assert same(again, model)
    # The reference's names are taken too.
    assert same(type(ours).from_pretrained(None, config=ours.config, state_dict=reference.state_dict()), ours)


def test_weights_in_memory_need_a_configuration_and_nothing_else(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    state = model.state_dict()
    with pytest.raises(ConfigError, match="config=None: must be given where no name or path"):
        ViTMAEForPreTraining.from_pretrained(None, state_dict=state)
    with pytest.raises(ConfigError, match="state_dict=None: must be given"):
        ViTMAEForPreTraining.from_pretrained(None, config=model.config)
    with pytest.raises(ValueError, match="cannot be given together"):
        ViTMAEForPreTraining.from_pretrained(folder, state_dict=state)
    with pytest.raises(ValueError, match="cannot be passed together"):
        transformers.ViTMAEForPreTraining.from_pretrained(folder, state_dict=state)
    with pytest.raises(CheckpointError, match="state_dict: the weights are not a ViTMAE's"):
        ViTMAEForPreTraining.from_pretrained(None, config=model.config, state_dict={"x": torch.ones(1)})
    del state["decoder.mask_token"]
    with pytest.raises(CheckpointError, match=r"state_dict lacks decoder\.mask_token"):
        ViTMAEForPreTraining.from_pretrained(None, config=model.config, state_dict=state)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, torch.device("cpu"), {"": torch.device("cpu")}])
def test_a_device_map_of_one_device(device_map: Any, saved: tuple[Any, Path]) -> None:
    for kind in (ViTMAEModel, transformers.ViTMAEModel):
        assert kind.from_pretrained(saved[1], device_map=device_map).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("device_map", "balanced", "accelerate.dispatch_model"),
        ("device_map", {"vit": "cpu", "decoder": "disk"}, "accelerate.dispatch_model"),
        ("max_memory", {0: "1GB"}, "accelerate.dispatch_model"),
        ("offload_folder", "x", "accelerate.dispatch_model"),
        ("quantization_config", {"load_in_8bit": True}, "quantise the loaded model"),
        ("load_in_4bit", True, "quantise the loaded model"),
        ("variant", "fp16", "give the path"),
        ("tp_plan", "auto", "DistributedDataParallel"),
        ("gguf_file", "x.gguf", "safetensors or torch files"),
        ("from_tf", True, "safetensors or torch files"),
        ("proxies", {"http": "x"}, "HTTPS_PROXY"),
        ("use_kernels", True, "sdpa or eager"),
        ("attn_implementation", "flash_attention_2", "must be sdpa or eager"),
        ("my_own_argument", 3, "is not a field of ViTMAEConfig"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    argument: str, value: Any, message: str, saved: tuple[Any, Path]
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ViTMAEForPreTraining.from_pretrained(saved[1], **{argument: value})
    assert caught.value.field == argument


def test_loading_under_a_meta_device_is_refused(saved: tuple[Any, Path]) -> None:
    for kind in (ViTMAEModel, transformers.ViTMAEModel):
        with torch.device("meta"), pytest.raises(RuntimeError, match="meta device context manager"):
            kind.from_pretrained(saved[1])


def test_errors_are_those_that_the_reference_s_users_catch(saved: tuple[Any, Path]) -> None:
    for kind in (ViTMAEForPreTraining, transformers.ViTMAEForPreTraining):
        with pytest.raises(OSError, match="gone"):
            kind.from_pretrained(saved[1] / "gone")
        with pytest.raises(RuntimeError):
            kind.from_pretrained(saved[1], decoder_hidden_size=48)


def test_arguments_of_the_class(saved: tuple[Any, Path]) -> None:
    for kind in (ViTModel, transformers.ViTModel):
        for model in (
            kind.from_pretrained(saved[1], False),
            kind.from_pretrained(saved[1], add_pooling_layer=False),
        ):
            assert model.pooler is None


@EVERY_CLASS
def test_the_dtype_is_in_the_configuration(name: str, pair: Pair, tmp_path: Path) -> None:
    for model in pair(name):
        model.half().save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
        for wanted in ("auto", torch.bfloat16, "float32"):
            loaded = type(model).from_pretrained(tmp_path, dtype=wanted)
            assert loaded.dtype == (torch.float16 if wanted == "auto" else loaded.dtype)
            assert loaded.config.dtype == loaded.dtype
        new = type(model)._from_config(model.config, dtype="bfloat16", attn_implementation="eager")
        assert (new.dtype, new.config._attn_implementation) == (torch.bfloat16, "eager")


# To files


def test_save_pretrained_takes_the_reference_s_arguments(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, _ = saved
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    state = {name: value + 1 for name, value in model.state_dict().items()}
    arguments: dict[str, Any] = {
        "is_main_process": True,
        "state_dict": state,
        "push_to_hub": False,
        "max_shard_size": "5GB",
        "safe_serialization": True,
        "save_function": torch.save,
        "variant": None,
    }
    model.save_pretrained(save_directory=tmp_path / "plus-one", **arguments)
    again = ViTMAEForPreTraining.from_pretrained(tmp_path / "plus-one").state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    for argument, value in (("push_to_hub", True), ("safe_serialization", False), ("variant", "fp16")):
        with pytest.raises(ConfigError, match=f"{argument}=.* is not supported"):
            model.save_pretrained(tmp_path / "other", **{argument: value})
    assert not (tmp_path / "other").exists()


# Utilities


@EVERY_CLASS
def test_class_metadata(name: str, pair: Pair) -> None:
    ours, reference = (type(model) for model in pair(name))
    for attribute in ("main_input_name", "base_model_prefix", "input_modalities"):
        assert getattr(ours, attribute) == getattr(reference, attribute)
    for attribute in ("supports_gradient_checkpointing", "_supports_sdpa", "_can_compile_fullgraph"):
        assert getattr(ours, attribute) is getattr(reference, attribute) is True
    assert ours.config_class.__name__ == reference.config_class.__name__
    assert ours._supports_flash_attn is ours._supports_flex_attn is False
    assert ours.can_generate() is reference.can_generate() is False
    assert issubclass(ours, PreTrainedModel)
    assert issubclass(ours, ViTMAEPreTrainedModel if "MAE" in name else ViTPreTrainedModel)


def test_a_class_that_is_not_split_is_one_of_ours(random_model: Models) -> None:
    names = {type(module).__name__ for module in random_model().modules()}
    assert {"ViTMAEEmbeddings", "Layer", "ViTMAEDecoder"} <= names
    assert names >= set(PreTrainedModel._no_split_modules) - {"Embeddings"}


@EVERY_CLASS
def test_modules_are_found_by_the_reference_s_methods(name: str, pair: Pair) -> None:
    ours, reference = pair(name)
    for model in (ours, reference):
        embeddings = model.get_input_embeddings()
        assert embeddings is model.base_model.embeddings.patch_embeddings
        assert model.get_output_embeddings() is None
        assert (model.base_model is model) == (name in ("ViTMAEModel", "ViTModel"))
        replacement = nn.Identity()
        model.set_input_embeddings(replacement)
        assert model.get_input_embeddings() is replacement
        model.set_input_embeddings(embeddings)
        model.tie_weights()
        assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


@EVERY_CLASS
def test_parameters_and_bytes_are_counted(name: str, pair: Pair) -> None:
    ours, reference = pair(name)
    tables = sum(value.numel() for value in ours.buffers())  # parameters that do not train in the reference
    assert ours.num_parameters() == reference.num_parameters() - tables
    assert ours.get_memory_footprint() == reference.get_memory_footprint()
    assert ours.get_memory_footprint(return_buffers=False) == ours.get_memory_footprint() - 4 * tables
    ours.base_model.requires_grad_(False)
    frozen = sum(p.numel() for p in ours.base_model.parameters())
    assert ours.num_parameters(only_trainable=True) == ours.num_parameters() - frozen
    assert ours.num_parameters(exclude_embeddings=True) == ours.num_parameters()


@EVERY_CLASS
def test_gradient_checkpointing_has_both_names(name: str, pair: Pair) -> None:
    ours, _ = pair(name)
    layers = [module for module in ours.modules() if hasattr(module, "gradient_checkpointing")]
    assert len(layers) == (4 if name == "ViTMAEForPreTraining" else 2)
    for enable, disable in (
        (ours.gradient_checkpointing_enable, ours.gradient_checkpointing_disable),
        (ours.activation_checkpointing_enable, ours.activation_checkpointing_disable),
    ):
        assert not ours.is_gradient_checkpointing
        assert not ours.is_activation_checkpointing
        enable()
        assert all(layer.gradient_checkpointing for layer in layers)
        assert ours.is_gradient_checkpointing
        assert ours.is_activation_checkpointing
        enable(every_n_layers=2)
        assert [layer.gradient_checkpointing for layer in layers] == [True, False] * (len(layers) // 2)
        disable()
        assert not any(layer.gradient_checkpointing for layer in layers)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_checkpointing_kwargs": None, "every_n_layers": 2},
        {"offload": True},
    ],
)
def test_gradient_checkpointing_takes_arguments(
    options: dict[str, Any], random_model: Models, pixels: Pixels
) -> None:
    model, noise = random_model(hidden_dropout_prob=0.1).train(), torch.rand(2, 16)
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.gradient_checkpointing_enable(**options)
        model.zero_grad()
        torch.manual_seed(1)
        model(pixels(32, 32), noise).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(model.named_parameters()).keys()
    assert all(torch.allclose(gradients[0][n], gradients[1][n], atol=1e-6) for n in gradients[0])


@EVERY_CLASS
def test_inputs_require_gradients_on_request(name: str, pair: Pair, pixels: Pixels) -> None:
    for model in pair(name):
        model.requires_grad_(False)
        assert not model(pixels(32, 32))[0].requires_grad
        model.enable_input_require_grads()
        assert model(pixels(32, 32))[0].requires_grad
        model.disable_input_require_grads()
        assert not model(pixels(32, 32))[0].requires_grad


class TwoHeads(ViTMAEPreTrainedModel):
    """A model of a user's own, made as with the reference."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__(config)
        self.vit = ViTMAEModel(config)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        tokens = self.vit(pixel_values, mask_ratio=0.0).last_hidden_state
        return ImageClassifierOutput(logits=self.head(self.norm(tokens[:, 0])))


def test_a_head_of_one_s_own(saved: tuple[Any, Path], pixels: Pixels, tmp_path: Path) -> None:
    with pytest.warns(NewParametersWarning, match=r"lacks 4 parameters.*norm\.weight.*head\.bias"):
        model = TwoHeads.from_pretrained(saved[1], num_labels=7, attn_implementation="eager")
    assert same(model.vit, saved[0].vit)
    assert model(pixels(32, 32)).logits.shape == (2, 7)
    model.save_pretrained(tmp_path / "own")
    again, info = TwoHeads.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert not any(info.values()), info
    assert same(again, model)
    assert json.loads((tmp_path / "own/config.json").read_text())["architectures"] == ["TwoHeads"]
    assert same(ViTMAEModel.from_pretrained(tmp_path / "own"), model.vit)


def test_a_model_is_made_from_a_configuration_alone(saved: tuple[Any, Path]) -> None:
    for kind in (ViTMAEModel, transformers.ViTMAEModel):
        with pytest.raises(TypeError, match="from_pretrained"):
            kind(str(saved[1]))


@EVERY_CLASS
def test_weights_are_drawn_again(name: str, pair: Pair) -> None:
    """As for a model that was made without memory, and then given some."""
    kind, config = type(pair(name)[0]), pair(name)[0].config
    torch.manual_seed(0)
    new = kind(config)
    with torch.device("meta"):
        empty = kind(config)
    assert {value.device.type for value in empty.state_dict().values()} == {"meta"}
    model = empty.to_empty(device="cpu")
    model.init_weights()
    for key, value in model.state_dict().items():
        expected = new.state_dict()[key]
        if "pos" in key or key.endswith("bias") or "norm" in key:
            assert torch.equal(value, expected), key
        else:
            assert 0.5 < float(value.std() / expected.std()) < 2, key  # as few as 32 numbers


class Adapter(nn.Linear):
    """A linear map with something added to it, as LoRA adds it."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) + 1


@pytest.mark.parametrize("way", ["class", "hook", "forward"])
def test_a_changed_projection_is_called_in_training(way: str, tiny: Tiny, pixels: Pixels) -> None:
    fields = {name: value for name, value in tiny().items() if not name.startswith("decoder_")}
    model = ViTForImageClassification(ViTConfig(**fields, num_labels=3)).eval()
    attention = model.vit.encoder.layer[0].attention.attention
    plain, value = model(pixels(32, 32)).logits, attention.value
    if way == "class":
        attention.value = Adapter(32, 32)
        attention.value.load_state_dict(value.state_dict())
    elif way == "hook":
        value.register_forward_hook(lambda module, args, output: output + 1)
    else:
        original = value.forward
        value.forward = lambda tokens: original(tokens) + 1
    changed = model(pixels(32, 32)).logits
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert torch.allclose(model.train()(pixels(32, 32)).logits, changed, atol=1e-6)
