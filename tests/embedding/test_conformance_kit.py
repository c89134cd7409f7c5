"""The conformance kit: a good plugin passes, and each kind of broken one fails the check for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.embedding.testing import (
    CHECKS,
    ConformanceError,
    PluginUnderTest,
    check_embedder,
    odd_images,
    sample_images,
)
from vitmae_search.errors import VitmaeSearchError

CHECK = {check.__name__: check for check in CHECKS}
Changes = dict[str, str]

PREPARED = "    return np.array("
EMBEDDED = "        return (flat"
INFO = "    info = "
CLAIMS_RECONSTRUCT = {"title=": "capabilities={'embed', 'reconstruct'}, title="}
RECONSTRUCT = """
    def reconstruct(self, image, *, mask_ratio=0.75, seed=0, mask=None):
        from vitmae_search.records import Reconstruction
        mask = np.zeros((2, 2), bool) if mask is None else mask
        mask = MASK
        panel = np.full((8, 8, 3), np.random.default_rng(SEED).integers(200), np.uint8)
        error = np.zeros((2, 2), np.float32)
        return Reconstruction(panel, panel, panel, panel, mask, error, None, mask_ratio, "none")

    def close(self):
"""
RESULT_BUFFER = """
        out = self.__dict__.setdefault(f"rows{len(batch)}", np.zeros((len(batch), 192), np.float32))
        out[:] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return out #"""
SHARED_BUFFER = {
    "def prepare": "BUFFER = np.zeros((8, 8, 3), np.uint8)\n\n\ndef prepare",
    "return np.array(": "return np.copyto(BUFFER, ",
    ".resize((8, 8)))": ".resize((8, 8))) or BUFFER",
}


def in_prepare(line: str) -> Changes:
    """`line` before `prepare` returns."""
    return {PREPARED: f"    {line}\n{PREPARED}"}


def in_embed(line: str) -> Changes:
    """`line` before `embed` returns; `flat` holds the rows before they are made unit length."""
    return {EMBEDDED: f"        {line}\n{EMBEDDED}"}


def biased(amount: str) -> Changes:
    """Vectors with a bias that depends on what must not matter."""
    return in_embed(f"flat = flat + np.arange(192) * {amount}")


def with_reconstruct(seed: str, mask: str) -> Changes:
    return CLAIMS_RECONSTRUCT | {
        "    def close(self):\n": RECONSTRUCT.replace("SEED", seed).replace("MASK", mask)
    }


def with_resolved_options(identity: str, mode: str) -> Changes:
    """A plugin that resolves one of its options itself."""
    chosen = f"self.identity, self.resolved_options = {identity}, {{'mode': {mode}}}"
    return {"        self.options = options\n": f"        self.options = options\n        {chosen}\n"}


PROJECTION = """
def made():
    import tempfile
    from vitmae_search.embedding import Projection
    return str(Projection([WEIGHT], [np.zeros(3)], "head").store(tempfile.mkdtemp()).resolve())


class MeanColour(Embedder):
"""


def with_projection(weight: str) -> Changes:
    """A plugin with a projection of its own."""
    return {
        "class MeanColour(Embedder):\n": PROJECTION.replace("WEIGHT", weight),
        "    input_size = 8": "    input_size = 8\n    projection = made()",
    }


RANDOM_INIT = """    def random_init(self, seed):
        other = MeanColour(self.options)
        other.identity, drawn = IDENTITY, np.random.default_rng(SEED).random(192)
        embed = other.embed
        other.embed = lambda batch: (rows := embed(batch) + drawn.astype(np.float32)) / np.linalg.norm(
            rows, axis=1, keepdims=True
        )
        return other

    def close(self):
"""


def with_random_init(seed: str, identity: str) -> Changes:
    """A plugin with a random initialization: its vectors have a bias that `seed` decides."""
    return {"    def close(self):\n": RANDOM_INIT.replace("SEED", seed).replace("IDENTITY", identity)}


def with_offload(body: str) -> Changes:
    """A plugin that can offload; its vectors have the bias `self.error`."""
    offload = f"    error = 0\n\n    def offload(self):\n        {body}\n\n    def close(self):\n"
    return {"    def close(self):\n": offload} | in_embed("flat = flat + np.arange(192) * self.error")


def with_text(seed: str) -> Changes:
    """A plugin that knows words: a text's vector is drawn, and `seed` decides it."""
    draw = f"np.random.default_rng({seed}).standard_normal(192).astype(np.float32)"
    lines = f"        row = {draw}\n        return row / np.linalg.norm(row)\n\n    def close(self):\n"
    return {"    def close(self):\n": f"    def embed_text(self, text):\n{lines}"}


BROKEN: dict[str, dict[str, Changes]] = {
    "check_listing_is_cheap": {"torch": {"import numpy": "import torch, numpy"}},
    "check_opens": {
        "another title each time": {
            INFO: "    info = property(lambda _: PluginInfo('mine', str(np.random.rand())))\n    other = "
        },
        "half a dimension": {"dimension = 192": "dimension = 191.5"},
        "NumPy in the identity": {'{"side": 8}': '{"side": np.int64(8)}'},
    },
    "check_prepare_has_one_shape": {
        "wide": {".resize((8, 8))": ".resize((8, 8 if image.width < 1000 else 9))"},
        "one pixel": in_prepare("assert image.width > 1"),
        "NaN": {".resize((8, 8)))": ".resize((8, 8))).astype(np.float32) * (image.width > 1 or np.nan)"},
    },
    "check_prepare_leaves_the_image": {"draws": in_prepare("image.putpixel((0, 0), (1, 2, 3))")},
    "check_prepare_can_be_pickled": {
        "lambda": {"self.prepare = prepare": "self.prepare = lambda image: prepare(image)"},
        "a method of the embedder": {
            "self.prepare = prepare": "self.prepare = self.shrink",
            "    def close(self):\n": "    def shrink(self, image):\n        return prepare(image)\n\n"
            "    def close(self):\n",
        },
        "needs torch": in_prepare("import torch"),
        "another in each process": {PREPARED: "    import os\n    return os.getpid() % 199 + np.array("},
    },
    "check_prepare_in_threads": {"one buffer": SHARED_BUFFER},
    "check_vectors": {
        "not unit": in_embed("return flat.astype(np.float32)"),
        "odd row dropped": in_embed("flat = flat[: len(flat) // 2 * 2]"),
    },
    "check_odd_images_have_vectors": {
        "one color": in_embed("flat = flat - flat.mean(axis=1, keepdims=True)"),
        "one pixel wide": in_embed("flat = flat / (batch.std(axis=2).max(axis=(1, 2)) > 0)[:, None]"),
    },
    "check_batches_may_be_read_only": {
        "writes to the batch": in_embed("batch[0] = 0"),
        "other vectors": biased("(not batch.flags.writeable)"),
    },
    "check_batches_stay_as_they_are": {
        "writes to the batch": in_embed("batch[0] = 0"),
        "where it can": in_embed("if batch.flags.writeable: batch[0] = 0"),
    },
    "check_results_are_new": {
        "a buffer for each size": {EMBEDDED: RESULT_BUFFER},
        "one buffer": {
            EMBEDDED: RESULT_BUFFER.replace("{len(batch)}", "")
            .replace("(len(batch)", "(99")
            .replace("out[:]", "out = out[: len(batch)]; out[:]")
        },
    },
    "check_batch_composition_does_not_matter": {
        "statistics of the batch": biased("flat.mean()"),
        "random": biased("np.random.default_rng().random()"),
    },
    "check_rows_stay_aligned": {
        "place in the batch": biased("np.arange(len(flat))[:, None]"),
        "sorted": in_embed("flat = flat[np.argsort(flat[:, 0])]"),
    },
    "check_different_images_differ": {"all alike": in_embed("flat = flat * 0 + 1")},
    "check_same_in_another_process": {
        "vectors": biased("(__import__('os').getpid() % 9973 / 100)"),
        "identity": {'{"side": 8}': "{'side': __import__('os').getpid()}"},
    },
    "check_identity": {
        "another at each opening": {
            "self.options = options": "self.identity = {'at': __import__('time').time_ns()}"
        },
        "path": {'{"side": 8}': '{"weights": {"from": __file__}}'},
        "device": {'{"side": 8}': '{"device": "cpu"}'},
    },
    "check_identity_covers_options": {
        "a number": biased("self.options['power']"),
        "a whole number": biased("self.options['size']"),
        "a boolean": biased("self.options['deep']"),
        "another dimension": {
            "        self.options = options\n": "        self.options, self.deep = options, options['deep']\n"
            "        self.dimension = 191 if self.deep else 192\n",
            EMBEDDED: f"        flat = flat[:, : self.dimension]\n{EMBEDDED}",
        },
    },
    "check_options": {
        "another identity": with_resolved_options("{'side': options['mode']}", "'b'"),
        "another choice": with_resolved_options("{'side': 8}", "options['mode'] + 'b'"),
    },
    "check_reconstruction": {
        "none": CLAIMS_RECONSTRUCT,
        "random": with_reconstruct("None", "mask"),
        "mask unheeded": with_reconstruct("seed", "mask & False"),
    },
    "check_projection": {
        "no file": {"    input_size = 8": "    input_size, projection = 8, '/none.safetensors'"},
        "other features": with_projection("np.ones((3, 100))"),
        "all alike": with_projection("np.ones((3, 192)) * 1e-9"),
        "another at each opening": {
            **with_projection("np.random.default_rng(0).normal(size=(3, 192))"),
            "        self.prepare = prepare\n": "        self.prepare, self.projection = prepare, made()\n",
        },
    },
    "check_source_files": {
        "others each time": {
            "        self.options = options\n": "        self.source_files = [f'/{id(self)}']\n",
        },
        "no paths": {"    input_size = 8": "    input_size, source_files = 8, ['weights']"},
    },
    "check_text": {
        "one vector for all texts": with_text("3"),
        "another one each time": with_text("None"),
        "fails for long texts": with_text("[ord(one) for one in text][: 5 if len(text) < 99 else 'all']"),
    },
    "check_random_init": {
        "random": with_random_init("None", "{'seed': seed}"),
        "the model's identity": with_random_init("seed", "self.identity"),
        "none": {"    def close(self):\n": "    def random_init(self, seed): pass\n\n    def close(self):\n"},
    },
    "check_offload": {
        "other vectors": with_offload("self.error = 1"),
        "other vectors after the second": with_offload("self.error, self.once = getattr(self, 'once', 0), 1"),
        "for all": with_offload("MeanColour.error = 1"),
        "once only": with_offload("del self.options"),
    },
    "check_close": {
        "once only": {"        pass": "        del self.options"},
        "for all": {"        pass": "        MeanColour.closed = True"}
        | in_embed("flat = flat + np.arange(192) * getattr(MeanColour, 'closed', 0)"),
    },
}
FAILS = (AssertionError, VitmaeSearchError, AttributeError, ValueError)
CASES = [pytest.param(check, changes, id=f"{check}: {kind}")
         for check, kinds in BROKEN.items() for kind, changes in kinds.items()]  # fmt: skip


def test_every_check_has_a_plugin_that_it_catches() -> None:
    assert set(BROKEN) == set(CHECK)


@pytest.mark.parametrize(("check", "changes"), CASES)
def test_a_broken_plugin_is_caught_by_its_check(write_plugin, check: str, changes: Changes) -> None:
    path = write_plugin("mine")
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    with PluginUnderTest(path) as subject, pytest.raises(FAILS):
        CHECK[check](subject)


def test_the_good_plugin_passes_as_file_and_as_module(write_plugin, tmp_path: Path, monkeypatch) -> None:
    check_embedder(write_plugin("good"), options={"size": 9})
    write_plugin("good_plugin_module", folder=tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    try:
        check_embedder("good_plugin_module")
        check_embedder("good_plugin_module:plugin")
    finally:
        sys.modules.pop("good_plugin_module", None)


def test_a_plugin_with_a_random_initialization_passes(write_plugin) -> None:
    ((old, new),) = with_random_init("seed", "{'seed': seed}").items()
    check_embedder(write_plugin("good", old=old, new=new))


def test_a_plugin_that_offloads_passes(write_plugin) -> None:
    path = write_plugin("good")
    text = path.read_text()
    for old, new in with_offload("self.once = True").items():
        text = text.replace(old, new)
    path.write_text(text)
    check_embedder(path)


def test_a_plugin_with_a_projection_passes(write_plugin) -> None:
    path = write_plugin("good")
    text = path.read_text()
    for old, new in with_projection("np.random.default_rng(0).normal(size=(3, 192))").items():
        text = text.replace(old, new)
    path.write_text(text)
    check_embedder(path)


def test_check_embedder_lists_every_failure(write_plugin) -> None:
    path = write_plugin("mine", old='{"side": 8}', new='{"device": "cpu"}')
    path.write_text(path.read_text().replace("        pass", "        del self.options"))
    with pytest.raises(ConformanceError) as caught:
        check_embedder(path)
    message = str(caught.value)
    assert f"2 of {len(CHECKS)} checks fail" in message
    assert "check_identity: ConformanceError: identity.device" in message
    assert "check_close" in message


def test_the_images_are_as_documented() -> None:
    odd = odd_images()
    assert {(1, 1)} < {image.size for image in odd}
    assert any(image.width == 1 < image.height for image in odd)
    assert any(image.height < image.width // 100 for image in odd)
    assert all(image.mode == "RGB" for image in [*odd, *sample_images()])
    small = np.stack([np.asarray(image.resize((4, 4))) for image in sample_images()]).astype(int)
    assert min(np.abs(a - b).max() for i, a in enumerate(small) for b in small[:i]) > 50


def test_a_child_that_dies_is_a_failure_with_a_reason(write_plugin) -> None:
    dies = "import os\nif 'AGAIN' in os.environ: os._exit(7)\nimport numpy"
    path = write_plugin("mine", old="import numpy", new=dies)
    with PluginUnderTest(path) as subject:
        assert subject.info.name == "mine"
        os.environ["AGAIN"] = "1"
        try:
            with pytest.raises(ConformanceError, match="exit code 7"):
                CHECK["check_listing_is_cheap"](subject)
        finally:
            del os.environ["AGAIN"]
