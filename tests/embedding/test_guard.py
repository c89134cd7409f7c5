"""The guard: what comes back from a plugin is checked, and the plugin at fault is named."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import (
    GuardedEmbedder,
    ProjectedEmbedder,
    Projection,
    guard,
    load_drop_in,
    open_embedder,
)
from vitmae_search.errors import (
    DeviceError,
    ModelError,
    NoDecoder,
    NoText,
    PluginBroken,
    PluginError,
    PluginOptionError,
)

PHOTO = Image.linear_gradient("L").convert("RGB")
Opened = Callable[..., GuardedEmbedder]


@pytest.fixture
def opened(write_plugin) -> Opened:
    """`opened(old, new)`: an open embedder of the good plugin with one piece replaced."""

    def make(old: str = "", new: str = "", **options: Any) -> GuardedEmbedder:
        return open_embedder(load_drop_in(write_plugin("mine", old=old, new=new)), options)

    return make


def batch_of(embedder: GuardedEmbedder, n: int = 3) -> np.ndarray:
    return np.stack([embedder.prepare(PHOTO.rotate(30 * i)) for i in range(n)])


def test_a_good_plugin(opened: Opened) -> None:
    with opened(size="16") as embedder:
        vectors = embedder.embed(batch_of(embedder))
        assert (embedder.shape, embedder.dtype) == ((8, 8, 3), np.uint8)
        assert vectors.shape == (3, 192)
        assert embedder.options == {"size": 16, "deep": False, "power": 1.5, "mode": "a"}
        assert embedder.unresolved_options == {}
        assert embedder.embed(batch_of(embedder)[:0]).shape == (0, 192)
        assert len(embedder.fingerprint("exact")) == 64


def test_what_an_embedder_chose_is_among_its_options(opened: Opened) -> None:
    embedder = opened(
        "input_size = 8", "input_size, resolved_options = 8, {'mode': 'b', 'size': 16}", size="4"
    )
    assert embedder.options == {"size": 16, "deep": False, "power": 1.5, "mode": "b"}
    assert embedder.unresolved_options == {"size": 4, "mode": "a"}


RETURN = "        return (flat"


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("return None #", "a NoneType"),
        ("return flat #", "float64; it must be float32"),
        ("return flat.astype(np.float32)[1:] #", r"shape \(2, 192\); it must be \(3, 192\)"),
        ("return flat.astype(np.float32) #", r"embed gave a vector of norm [\d.e+]+; it must be 1"),
        ("flat[1, 5] = np.nan; return (flat", "NaN or infinity in row 1 of 3"),
        ("return np.asfortranarray((flat / np.linalg.norm(flat, axis=1)[:, None]).astype(np.float32)) #",
         "not C-contiguous"),
        ("raise RuntimeError('no luck')  #", "embed failed: RuntimeError: no luck"),
        ("raise SystemExit(1)  #", "embed failed: SystemExit"),
    ],
)  # fmt: skip
def test_vectors_that_break_the_contract(opened: Opened, new: str, reason: str) -> None:
    embedder = opened(RETURN, f"        {new}")
    with pytest.raises(PluginBroken, match=f"plugin 'mine': .*{reason}"):
        embedder.embed(batch_of(embedder))


def test_the_cause_stays_chained(opened: Opened) -> None:
    embedder = opened(RETURN, "        raise RuntimeError('no luck') #")
    with pytest.raises(PluginBroken) as caught:
        embedder.embed(batch_of(embedder))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("raised", ["MemoryError()", "type('OutOfMemoryError', (RuntimeError,), {})('CUDA')"])
def test_out_of_memory_passes_so_that_the_batch_can_be_halved(opened: Opened, raised: str) -> None:
    embedder = opened(RETURN, f"        if len(batch) > 2: raise {raised}\n        return (flat")
    batch = batch_of(embedder)
    with pytest.raises(MemoryError):
        embedder.embed(batch)
    assert len(embedder.embed(batch[:2])) == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('model = "mean-colour"', "model = None", "model=None must be text"),
        ("dimension = 192", "dimension = 0", "dimension=0"),
        ("dimension = 192", "dimension = np.int64(192)", "dimension="),
        ("dimension = 192", "", "no attribute 'dimension'"),
        ("input_size = 8", "input_size = -1", "input_size=-1"),
        ('{"side": 8}', '{"side": np.int64(8)}', r"identity\.side is of type int64; use int\("),
        ('{"side": 8}', "[8]", "identity=.* must be a dict"),
        ('{"side": 8}', '{"a": np.float32(8)}', r"identity\.a is of type float32; use float\("),
        ('{"side": 8}', '{"a": [np.bool_(True)]}', r"identity\.a\[0\] is of type bool_?; use bool\("),
        (
            '{"precision": "fp32"}',
            '{"when": {1}}',
            r"provenance\.when is of type set, which is not plain JSON",
        ),
        ("self.prepare = prepare", "self.prepare = 3", "prepare is a int"),
        ("return np.array(", "return [8] or (", "prepare gave a list"),
        ("resize((8, 8)))", "resize((8, 8))).astype(float)", "prepare gave float64"),
        ("input_size = 8", "input_size, batch_size = 8, 0", "batch_size=0 must be an int above 0"),
        ("input_size = 8", "input_size, batch_size = 8, True", "batch_size=True must be an int"),
        ("input_size = 8", "input_size, batch_size = 8, 64.0", "batch_size=64.0 must be an int"),
        ("input_size = 8", "input_size, projection = 8, 3", "projection=3 must be None or an absolute path"),
        ("input_size = 8", "input_size, projection = 8, 'head'", "projection='head'"),
        (
            "input_size = 8",
            "input_size, source_files = 8, '/weights'",
            "must be None or a list of absolute paths",
        ),
        (
            "input_size = 8",
            "input_size, source_files = 8, ['weights']",
            "must be None or a list of absolute paths",
        ),
        (
            "def close",
            "@property\n    def projection(self): raise KeyError('no')\n\n    def close",
            "embedder's attributes failed: KeyError",
        ),
        (
            "input_size = 8",
            "input_size, resolved_options = 8, {'depth': 2}",
            "resolved_options=.* no options of it",
        ),
        (
            "input_size = 8",
            "input_size, resolved_options = 8, {'size': 'big'}",
            "resolved_options=.* no options",
        ),
        (
            "input_size = 8",
            "input_size, resolved_options = 8, 'big'",
            "resolved_options='big' are no options",
        ),
        ("class MeanColour(Embedder):", "class MeanColour:", "is a MeanColour; its class must subclass"),
        ("    def embed(", "    def encode(", "open failed: TypeError: .*abstract"),
        ("return MeanColour(options)", "raise OSError('gone')", "open failed: OSError: gone"),
        ("return MeanColour(options)", "return None", "the embedder is a NoneType; its class must subclass"),
    ],
)
def test_embedders_that_break_the_contract_when_opened(opened: Opened, old, new, reason) -> None:
    with pytest.raises(PluginBroken, match=f"plugin 'mine': .*{reason}"):
        opened(old, new)


@pytest.mark.parametrize(
    ("new", "size"), [("input_size = 8", None), ("input_size, batch_size = 8, 512", 512)]
)
def test_how_many_photos_suit_the_device(opened: Opened, new: str, size: int | None) -> None:
    assert opened("input_size = 8", new).batch_size == size


@pytest.mark.parametrize("new", ["input_size = 8", "input_size, projection = 8, None"])
def test_a_model_without_a_projection(opened: Opened, new: str) -> None:
    embedder = opened("input_size = 8", new)
    assert embedder.projection is None
    assert embedder.own_projection() is None


def test_a_projection_of_the_models_own(opened: Opened, tmp_path: Path) -> None:
    made = Projection([np.eye(192)[:4]], [np.zeros(4)], "head")
    path = made.store(tmp_path)
    embedder = opened("input_size = 8", f"input_size, projection = 8, {str(path)!r}")
    assert embedder.own_projection().digest == made.digest
    assert "projection" not in embedder.identity
    Projection([np.eye(191)[:4]], [np.zeros(4)], "head").save(path)
    with pytest.raises(ModelError, match="features of dimension 191, and these have 192"):
        embedder.own_projection()
    path.unlink()
    with pytest.raises(ModelError, match="no such projection file"):
        embedder.own_projection()


def test_an_embedder_and_a_projection_are_an_embedder(opened: Opened) -> None:
    embedder = opened()
    turn = Projection([np.random.default_rng(0).normal(size=(4, 192))], [np.ones(4)], "head")
    both = ProjectedEmbedder(embedder, turn)
    batch = batch_of(embedder)
    np.testing.assert_array_equal(both.embed(batch), turn(embedder.embed(batch)))
    assert (both.dimension, both.model, both.input_size) == (4, embedder.model, embedder.input_size)
    assert both.identity == {"features": embedder.identity, "projection": turn.digest}
    with pytest.raises(ModelError, match="does not fit"):
        ProjectedEmbedder(both, turn)
    both.close()
    with pytest.raises(ValueError, match="closed"):
        embedder.embed(batch)


def test_a_model_that_fails_the_checks_is_closed_again(write_plugin, tmp_path: Path) -> None:
    path = write_plugin("mine", old="dimension = 192", new="dimension = 0")
    told = tmp_path / "closed"
    path.write_text(path.read_text().replace("        pass", f"        open({str(told)!r}, 'w').close()"))
    with pytest.raises(PluginBroken, match="dimension"):
        open_embedder(load_drop_in(path))
    assert told.exists()


def test_prepare_is_held_to_one_shape(opened: Opened) -> None:
    embedder = opened(".resize((8, 8))", ".resize((8, 8 if image.width < 99 else 9))")
    assert embedder.prepare(Image.new("RGB", (50, 50))).shape == (8, 8, 3)
    with pytest.raises(PluginBroken, match="fixed shape"):
        embedder.prepare(Image.new("RGB", (100, 50)))


def test_a_batch_that_prepare_did_not_make_is_the_callers_fault(opened: Opened) -> None:
    embedder = opened()
    with pytest.raises(ValueError, match="the batch is"):
        embedder.embed(np.zeros((2, 8, 8, 3), np.float32))


def test_errors_meant_for_a_person_pass(opened: Opened) -> None:
    new = "from vitmae_search.errors import ModelNotFound; raise ModelNotFound('no such model')"
    with pytest.raises(Exception, match=r"^no such model$"):
        opened("return MeanColour(options)", new)


def test_options_devices_and_precisions_are_checked_before_the_plugin_sees_them(write_plugin) -> None:
    plugin = load_drop_in(write_plugin("mine", old="return MeanColour(options)", new="raise AssertionError"))
    with pytest.raises(PluginOptionError):
        open_embedder(plugin, {"nothing": "1"})
    with pytest.raises(DeviceError, match="no device 'gpu'"):
        open_embedder(plugin, device="gpu")
    with pytest.raises(DeviceError, match="no precision 'int8'"):
        open_embedder(plugin, precision="int8")


def test_close_reaches_the_plugin_once_and_ends_embedding(opened: Opened) -> None:
    embedder = opened("        pass", "        self.closed = getattr(self, 'closed', 0) + 1")
    batch = batch_of(embedder)
    embedder.close()
    embedder.close()
    assert embedder._embedder.closed == 1  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="closed"):
        embedder.embed(batch)


def test_vectors_that_were_returned_survive_a_plugin_that_fills_its_buffer_again(opened: Opened) -> None:
    reuses = (
        "        rows = self.__dict__.setdefault('rows', np.empty((8, 192), np.float32))[: len(batch)]\n"
        "        rows[:] = flat / np.linalg.norm(flat, axis=1, keepdims=True)\n        return rows\n"
    )
    embedder = opened(RETURN, f"{reuses}        return (flat")
    batch = batch_of(embedder)
    first = embedder.embed(batch)
    kept = first.copy()
    second = embedder.embed(batch[::-1])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, kept[::-1])
    assert not np.shares_memory(second, embedder._embedder.rows)  # type: ignore[attr-defined]


def test_the_plugin_cannot_change_the_pixels_of_the_batch(opened: Opened) -> None:
    embedder = opened(RETURN, "        batch[0] = 0\n        return (flat")
    batch = batch_of(embedder)
    kept = batch.copy()
    with pytest.raises(PluginBroken, match="embed failed: ValueError: assignment destination is read-only"):
        embedder.embed(batch)
    np.testing.assert_array_equal(batch, kept)
    batch[0] = 1  # the caller's own array is as writable as before


def test_one_embed_at_a_time(opened: Opened) -> None:
    guarded = (
        "        assert not getattr(self, 'busy', False)\n        self.busy = True\n        import time\n"
        "        time.sleep(0.02)\n        self.busy = False\n        return (flat"
    )
    embedder = opened(RETURN, guarded)
    batch, failed = batch_of(embedder), []

    def embed() -> None:
        try:
            embedder.embed(batch)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=embed) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


OFFLOAD = {
    "        self.options = options\n": "        self.options, self.offloads = options, 0\n",
    "    def close(self):\n": "    def offload(self):\n        self.offloads += 1\n\n    def close(self):\n",
}


@pytest.fixture
def offloadable(write_plugin) -> GuardedEmbedder:
    """A plugin that counts how often it is offloaded."""
    path = write_plugin("mine")
    text = path.read_text()
    for old, new in OFFLOAD.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return open_embedder(load_drop_in(path))


def test_a_plugin_that_cannot_offload_is_left_alone(opened: Opened) -> None:
    embedder = opened()
    assert not embedder.offload()
    assert not embedder.offloaded


def test_it_is_offloaded_until_the_next_call(offloadable: GuardedEmbedder) -> None:
    batch = batch_of(offloadable)
    assert offloadable.offload()
    assert offloadable.offloaded
    assert not offloadable.offload(), "it is offloaded already"
    assert offloadable._embedder.offloads == 1  # type: ignore[attr-defined]
    offloadable.embed(batch)
    assert not offloadable.offloaded
    assert not offloadable.offload(idle_seconds=60), "it was used a moment ago"
    assert offloadable.offload()
    offloadable.close()
    assert not offloadable.offload()
    assert offloadable._embedder.offloads == 2  # type: ignore[attr-defined]


def test_it_counts_from_the_end_of_the_last_call(
    offloadable: GuardedEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = round(time.monotonic()) + 1000  # whole seconds, so that sums and differences of them are exact
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now))
    offloadable.embed(batch_of(offloadable))
    now += 59
    assert not offloadable.offload(idle_seconds=60)
    now += 1
    assert offloadable.offload(idle_seconds=60)


def test_a_running_call_prevents_offloading_and_nobody_waits(offloadable: GuardedEmbedder) -> None:
    batch, at_work, finish = batch_of(offloadable), threading.Event(), threading.Event()
    inner = offloadable._embedder.embed

    def slow(rows: np.ndarray) -> np.ndarray:
        at_work.set()
        assert finish.wait(60)
        return inner(rows)

    offloadable._embedder.embed = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=offloadable.embed, args=(batch,))
    thread.start()
    assert at_work.wait(60)
    assert not offloadable.offload()
    finish.set()
    thread.join()
    assert not offloadable.offload(idle_seconds=60)
    assert offloadable.offload()


def test_an_offload_that_fails_is_the_plugins_fault(opened: Opened) -> None:
    fails = "    def offload(self):\n        raise RuntimeError('no bed')\n\n    def close(self):\n"
    embedder = opened("    def close(self):\n", fails)
    with pytest.raises(PluginBroken, match="'mine': offload failed: RuntimeError: no bed"):
        embedder.offload()
    assert not embedder.offloaded
    assert embedder.embed(batch_of(embedder)).shape == (3, 192)


def test_a_plugin_without_reconstructions_says_so(opened: Opened) -> None:
    with pytest.raises(NoDecoder, match="'mine' makes no reconstructions"):
        opened().reconstruct(PHOTO)


def test_a_plugin_that_claims_reconstructions_and_has_none(opened: Opened) -> None:
    claims = opened("title=", "capabilities=frozenset({'embed', 'reconstruct'}), title=")
    with pytest.raises(PluginBroken, match="has no reconstruct"):
        claims.reconstruct(PHOTO)


def knows_words(opened: Opened, returned: str) -> GuardedEmbedder:
    code = f"    def embed_text(self, text):\n        return {returned}\n\n    def close(self):\n"
    return opened("    def close(self):\n", code)


def test_a_model_of_pictures_alone_says_that_it_knows_no_words(opened: Opened) -> None:
    embedder = opened()
    assert not embedder.knows_words
    assert not embedder.description.knows_words
    with pytest.raises(NoText, match="does not know words: it was trained on pictures alone"):
        embedder.embed_text("a red bicycle")


def test_the_vector_of_a_text_is_a_copy(opened: Opened) -> None:
    buffer = "self.__dict__.setdefault('row', np.eye(1, 192, len(text), np.float32)[0])"
    embedder = knows_words(opened, buffer)
    assert embedder.description.knows_words
    vector = embedder.embed_text("red")
    assert vector[3] == 1
    vector[:] = 7
    assert embedder.embed_text("red")[3] == 1


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("[1.0] * 192", "embed_text gave a list"),
        ("np.eye(1, 192)[0]", "embed_text gave float64"),
        ("np.eye(1, 192, dtype=np.float32)", r"embed_text gave shape \(1, 192\)"),
        ("np.ones(192, np.float32)", "embed_text gave a vector of norm"),
        ("np.full(192, np.nan, np.float32)", "embed_text gave NaN"),
        ("{}[text]", "embed_text failed"),
    ],
)
def test_texts_that_break_the_contract(opened: Opened, returned: str, reason: str) -> None:
    with pytest.raises(PluginBroken, match=reason):
        knows_words(opened, returned).embed_text("red")


@pytest.mark.parametrize("package", [False, True])
def test_prepare_of_a_drop_in_pickles_into_a_fresh_process(tmp_path: Path, write_plugin, package) -> None:
    partial = "import functools; self.prepare = functools.partial(prepare)"
    path = write_plugin("mine", package=package, old="self.prepare = prepare", new=partial)
    embedder = open_embedder(load_drop_in(path))
    file = tmp_path / "prepare.pickle"
    file.write_bytes(pickle.dumps(embedder.prepare))
    code = (
        "import pickle, sys\nfrom PIL import Image\n"
        f"prepare = pickle.load(open({str(file)!r}, 'rb'))\n"
        "print(prepare(Image.new('RGB', (9, 5), (7, 8, 9))).sum(), 'torch' in sys.modules)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [str(64 * (7 + 8 + 9)), "False"]


def test_a_prepare_that_does_not_pickle_is_the_plugins_fault(opened: Opened) -> None:
    embedder = opened("self.prepare = prepare", "self.prepare = lambda image: prepare(image)")
    with pytest.raises(PluginBroken, match="pickling prepare failed"):
        pickle.dumps(embedder.prepare)


def test_plugin_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(PluginBroken("mine", "broke")))
    assert (type(error), error.plugin, str(error)) == (PluginBroken, "mine", "plugin 'mine': broke")


RANDOM_INIT = "    def random_init(self, seed): {}\n\n    def close(self):\n"


def test_a_plugin_without_random_initialization(opened: Opened) -> None:
    assert opened().random_init() is None


def test_the_randomly_initialized_network_is_guarded_too(opened: Opened) -> None:
    seeded = "new = MeanColour(self.options); new.model = f'{self.model} {seed}'; return new"
    with opened("    def close(self):\n", RANDOM_INIT.format(seeded)) as embedder:
        untrained = embedder.random_init(seed=3)
        assert untrained is not None
        assert (untrained.model, untrained.dimension) == ("mean-colour 3", embedder.dimension)
        untrained.close()
        assert len(embedder.embed(batch_of(embedder))) == 3


@pytest.mark.parametrize("code", ["return None", "raise KeyError(seed)"])
def test_a_random_initialization_that_breaks_the_contract(opened: Opened, code: str) -> None:
    embedder = opened("    def close(self):\n", RANDOM_INIT.format(code))
    with pytest.raises(PluginBroken, match="plugin 'mine'"):
        embedder.random_init()


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ("np.ones((len(images), 2, 2, 3), np.float32)", None),
        ("np.ones((len(images), 2, 2, 3))", "float32"),
        ("[1.0]", "NumPy array"),
        ("np.ones((1, 2, 2, 3), np.float32)", r"must be \(2, rows, columns, C\)"),
        ("np.full((len(images), 2, 2, 3), np.nan, np.float32)", "NaN"),
    ],
)
def test_tokens_of_patches_are_checked(opened: Opened, tokens: str, problem: str | None) -> None:
    head = "    def embed(self, batch"
    embedder = opened(head, f"    def patch_tokens(self, images):\n        return {tokens}\n\n{head}")
    assert embedder.has_patch_tokens
    if problem is None:
        assert embedder.patch_tokens([PHOTO, PHOTO]).shape == (2, 2, 2, 3)
    else:
        with pytest.raises(PluginBroken, match=problem):
            embedder.patch_tokens([PHOTO, PHOTO])


def test_tokens_of_patches_are_optional(opened: Opened) -> None:
    embedder = opened()
    assert not embedder.has_patch_tokens
    with pytest.raises(PluginError, match="no tokens of patches"):
        embedder.patch_tokens([PHOTO])
