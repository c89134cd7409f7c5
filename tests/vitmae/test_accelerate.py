"""Accelerate's offloading and mixed precision, and the `Trainer` of transformers, with models of ours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor

from vitmae_search.vitmae import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

Tiny = Callable[..., dict[str, Any]]
Pixels = Callable[[int, int], Tensor]

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, of deprecations and of a CPU

MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "pretraining": (ViTMAEForPreTraining, ViTMAEConfig, {"noise": torch.rand(2, 18)}),
    "encoder": (ViTMAEModel, ViTMAEConfig, {"noise": torch.rand(2, 18)}),
    "vit": (ViTModel, ViTConfig, {}),
    "classification": (ViTForImageClassification, ViTConfig, {"labels": torch.tensor([0, 1])}),
}


@pytest.fixture(autouse=True)
def forget_the_process() -> Iterator[None]:
    """Accelerate keeps the state of a process, its precision with it."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tiny: Tiny) -> tuple[Any, dict[str, Any]]:
    """A model in evaluation mode, and arguments of its `forward` beside the pixels."""
    kind, config, arguments = MODELS[request.param]
    fields = {
        name: value for name, value in tiny().items() if config is ViTMAEConfig or "decoder" not in name
    }
    return kind(config(**fields)).eval(), {**arguments, "interpolate_pos_encoding": True}


def distance(one: Any, other: Any) -> float:
    assert list(one) == list(other)
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [False, True])
def test_weights_may_lie_in_the_host_s_memory(
    implementation: Any, training: bool, model: tuple[Any, dict[str, Any]], pixels: Pixels
) -> None:
    """Each weight is on the device only while its own module runs."""
    module, arguments = model
    module.set_attn_implementation(implementation)
    expected = module.train(training)(pixels(24, 48), **arguments)
    offloaded = accelerate.cpu_offload(copy.deepcopy(module), "cpu", offload_buffers=True)
    assert {value.device.type for value in offloaded.state_dict().values()} == {"meta"}
    assert distance(offloaded(pixels(24, 48), **arguments), expected) <= 1e-6


def test_weights_may_lie_on_disk(model: tuple[Any, dict[str, Any]], pixels: Pixels, tmp_path: Path) -> None:
    module, arguments = model
    expected = module(pixels(24, 48), **arguments)
    offloaded = accelerate.disk_offload(copy.deepcopy(module), tmp_path, "cpu", offload_buffers=True)
    assert {value.device.type for value in offloaded.state_dict().values()} == {"meta"}
    assert distance(offloaded(pixels(24, 48), **arguments), expected) <= 1e-6
    if hasattr(module, "encode"):
        states = offloaded.encode(pixels(32, 32), [0, 2])
        for found, wanted in zip(states, module.encode(pixels(32, 32), [0, 2]), strict=True):
            assert torch.allclose(found, wanted, atol=1e-6)


def test_weights_are_loaded_into_an_empty_model(
    model: tuple[Any, dict[str, Any]], pixels: Pixels, tmp_path: Path
) -> None:
    module, arguments = model
    module.save_pretrained(tmp_path)
    with accelerate.init_empty_weights():
        empty = type(module)(module.config)
    assert {value.device.type for value in empty.parameters()} == {"meta"}
    for name, table in empty.named_buffers():
        assert torch.equal(table, module.get_buffer(name))
    loaded = accelerate.load_checkpoint_and_dispatch(empty, tmp_path, device_map={"": "cpu"}).eval()
    assert distance(loaded(pixels(24, 48), **arguments), module(pixels(24, 48), **arguments)) == 0


def test_mixed_precision_gives_fp32(model: tuple[Any, dict[str, Any]], pixels: Pixels) -> None:
    module, arguments = model
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    output = accelerator.prepare(module.train())(pixels(24, 48), **arguments)
    floats = [value for value in output.values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}
    if "loss" in output:
        accelerator.backward(output.loss)
        assert all(p.grad is not None for p in module.parameters())


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Any]:
    """Two steps of transformers' `Trainer`, with checkpoints after each."""
    import transformers

    def run(model: Any, rows: list[dict[str, Any]], **options: Any) -> Any:
        resumed = options.pop("resume_from_checkpoint", None)
        others = {name: options.pop(name) for name in ("callbacks", "processing_class") if name in options}
        arguments = transformers.TrainingArguments(
            str(tmp_path / "run"),
            max_steps=2,
            save_steps=1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **options,
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, **others)
        trainer.train(resume_from_checkpoint=resumed)
        return trainer

    return run


@pytest.mark.parametrize("prefix", ["gradient", "activation"])
def test_a_trainer_pretrains_with_checkpointing(
    prefix: str, train: Callable[..., Any], tiny: Tiny, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    class SaveConfiguration(TrainerCallback):
        """As docs/reference-parity.md has it."""

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            model.config.save_pretrained(f"{args.output_dir}/checkpoint-{state.global_step}")

    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny()))
    rows = [{"pixel_values": torch.randn(3, 32, 32)} for _ in range(4)]
    options = {f"{prefix}_checkpointing": True, f"{prefix}_checkpointing_kwargs": {"use_reentrant": False}}
    train(
        model,
        rows,
        **options,
        bf16=True,
        label_names=["pixel_values"],
        callbacks=[SaveConfiguration()],
        processing_class=ViTImageProcessor(size=32),
    )
    assert model.is_gradient_checkpointing
    last = tmp_path / "run/checkpoint-2"
    again = ViTMAEForPreTraining.from_pretrained(last)
    assert again.config == model.config
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert ViTImageProcessor.from_pretrained(last).height_width == (32, 32)
    resumed = train(model, rows, resume_from_checkpoint=str(tmp_path / "run/checkpoint-1"))
    assert resumed.state.global_step == 2


def test_a_trainer_s_checkpoint_is_loaded_with_a_configuration(
    train: Callable[..., Any], tiny: Tiny, tmp_path: Path
) -> None:
    """A `Trainer` writes config.json for transformers' own classes only."""
    fields = {name: value for name, value in tiny().items() if not name.startswith("decoder_")}
    model = ViTForImageClassification(ViTConfig(**fields, num_labels=3))
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": number % 3} for number in range(4)]
    trainer = train(model, rows)
    assert "eval_loss" in trainer.evaluate()
    assert trainer.predict(rows).predictions.shape == (4, 3)
    last = tmp_path / "run/checkpoint-2"
    assert not (last / "config.json").exists()
    again = ViTForImageClassification.from_pretrained(last, config=model.config)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
