"""The bundled model's training in one command: stopped, gone on with, carried elsewhere, and compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import train_default
from benchmarks.compare_with_bundled import comparison
from vitmae_search.vitmae import ViTMAEForPreTraining

Command = Callable[..., int]


@pytest.fixture
def command(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run it on six and four photos; its exit code. Nothing is installed that could evaluate."""
    for i in range(10):
        folder = "data/train/n1/images" if i < 6 else "cifar/train/cat"
        write_photo(tmp_path / folder / f"{i}.jpg", i)
    monkeypatch.setattr(train_default, "PRESETS", {"tiny": DEBUG_CONFIG})
    find = train_default.importlib.util.find_spec
    monkeypatch.setattr(
        train_default.importlib.util, "find_spec", lambda name, *_: None if name == "faiss" else find(name)
    )

    def run(*more: str) -> int:
        places = ["--data", "data", "--cifar", "cifar", "--output", "out"]
        monkeypatch.chdir(tmp_path)
        words = [*places, "--epochs", "1,1", "--batch-size", "4", "--device", "cpu", *more]
        monkeypatch.setattr(sys, "argv", ["train_default", *words])
        try:
            train_default.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


DEBUG_CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


def report(tmp_path: Path, stage: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((tmp_path / "out" / stage / "report.json").read_bytes())
    return found


def test_it_stops_goes_on_and_leaves_a_model_to_carry(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stops = 0
    while (code := command("--minutes", "0.000001")) == train_default.INTERRUPTED:
        stops += 1  # a step each time
    assert (code, stops) == (0, 2 + 3 - 2)  # ⌈6 / 4⌉ and ⌈10 / 4⌉ steps; the last ones end a stage
    assert report(tmp_path, "masked")["photos"] == 6
    assert report(tmp_path, "contrastive")["photos"] == 10
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "out" / "model")
    assert model.config.image_shape == (64, 64)
    assert max(path.stat().st_size for path in (tmp_path / "out" / "model").iterdir()) <= 16 * 2**20
    told = json.loads((tmp_path / "out" / "facts.json").read_bytes())
    assert told["stages"]["contrastive"]["epochs"] == pytest.approx(1.2)
    assert told["stages"]["masked"]["images_per_second"] > 0
    before = (tmp_path / "out" / "masked" / "state.pt").stat().st_mtime_ns
    assert command() == 0
    assert (tmp_path / "out" / "masked" / "state.pt").stat().st_mtime_ns == before
    assert "Without faiss it cannot be evaluated here" in capsys.readouterr().out


def test_no_photos_are_one_clear_sentence(command: Command, tmp_path: Path) -> None:
    for path in (tmp_path / "data").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="no photos under"):
        command()


def test_weights_are_cut_to_files_of_sixteen_mebibytes(tmp_path: Path) -> None:
    from vitmae_search.vitmae import ViTMAEConfig

    large = {**DEBUG_CONFIG, "hidden_size": 512, "num_hidden_layers": 4, "intermediate_size": 2048}
    model = ViTMAEForPreTraining(ViTMAEConfig(**large, image_size=64, patch_size=8))
    model.save_pretrained(tmp_path, max_shard_size=train_default.SHARD_BYTES)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
    assert len(sizes) > 2
    assert max(sizes) <= 16 * 2**20


def test_better_is_an_interval_above_the_others() -> None:
    def scores(value: float) -> dict[str, object]:
        figure = {"value": value, "low": value - 0.01, "high": value + 0.01}
        return {
            "name": f"model {value}",
            "dimension": 256,
            "neighbours": dict.fromkeys(("P@1", "P@10", "mAP@100", "20-NN"), figure),
        }

    for new, said in ((0.13, "better"), (0.07, "worse"), (0.11, "no difference that this shows")):
        text = comparison({"some": {"new": scores(new), "old": scores(0.1)}})
        assert f"P@10: {said}; 20-NN: {said}." in text
        assert f"| model {new} | 256 | {100 * new:.2f} (" in text
