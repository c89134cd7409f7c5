"""OpenVINO as the runtime: the same vectors, the same space, and clear errors."""

from __future__ import annotations

import gc
import importlib.util
import logging
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, PluginHost, load_drop_in, open_embedder
from vitmae_search.embedding.testing import check_embedder
from vitmae_search.errors import DeviceError, PluginOptionError
from vitmae_search.library import Library
from vitmae_search.settings import settings

PLUGIN = bundled("plugins") / "vitmae"
OPENVINO = {"runtime": "openvino"}


def open_default(precision: str, **options: Any) -> GuardedEmbedder:
    return open_embedder(PluginHost(packages=False).get("vitmae"), options, "cpu", precision)


@pytest.fixture
def openvino() -> Any:
    return pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def pixels(real_photos: dict[str, Path]) -> np.ndarray:
    """(128, 64, 64, 3) uint8: pieces of real photos."""
    names = ("astronaut", "chelsea", "coffee", "china")
    photos = [Image.open(real_photos[name]).convert("RGB").resize((256, 512)) for name in names]
    boxes = [(x, y, x + 64, y + 64) for x in range(0, 256, 64) for y in range(0, 512, 64)]
    return np.stack([np.asarray(photo.crop(box)) for photo in photos for box in boxes])


@pytest.fixture
def two_cores() -> None:
    torch.set_num_threads(2)  # which `one_thread` takes back


FEATURES = [
    {},
    {"layers": "0,6,last", "pooling": "mean"},
    {"layers": "-2", "pooling": "cls+moments"},
    {"layers": "last", "pooling": "cls", "views": "flip"},
]


@pytest.mark.parametrize("options", FEATURES)
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.9999)])
def test_vectors_are_torchs(openvino, pixels, two_cores, options, precision: str, least: float) -> None:
    with (
        open_default("fp32", **options) as full,
        open_default(precision, **options, **OPENVINO) as embedder,
    ):
        pixels = pixels[::3]
        exact = full.embed(pixels)
        for number in (1, 3, len(pixels)):
            found = embedder.embed(pixels[:number])
            assert found.shape == (number, full.dimension)
            assert (exact[:number] * found).sum(axis=1).min() >= least
        order = np.random.default_rng(0).permutation(len(pixels))
        assert (exact[order] * embedder.embed(pixels[order])).sum(axis=1).min() >= least
        alone = np.concatenate([embedder.embed(row[None]) for row in pixels[order[:3]]])
        assert (alone * found[order[:3]]).sum(axis=1).min() >= 0.999999


def test_another_size_than_the_models_own(openvino, real_photos: dict[str, Path]) -> None:
    options = {"layers": "0,last", "pooling": "gem", "image_size": 96, "views": "five"}
    with open_default("fp32", **options) as full, open_default("fp32", **options, **OPENVINO) as embedder:
        photo = Image.open(real_photos["coffee"]).convert("RGB")
        batch = np.stack([full.prepare(photo), full.prepare(photo.rotate(90))])
        assert (full.embed(batch) * embedder.embed(batch)).sum(axis=1).min() >= 0.999999


def test_it_keeps_the_contract(openvino, checkpoint: Path) -> None:
    check_embedder(PLUGIN, {"model": str(checkpoint), **OPENVINO})


def test_it_reconstructs_and_has_a_random_init_as_torch_does(openvino, real_photos: dict[str, Path]) -> None:
    photo = Image.open(real_photos["coffee"]).convert("RGB")
    with open_default("fp32") as full, open_default("bf16", **OPENVINO) as embedder:
        one, other = (opened.reconstruct(photo, seed=1) for opened in (full, embedder))
        assert np.array_equal(one.reconstruction, other.reconstruction)
        batch = full.prepare(photo)[None]
        with full.random_init(3) as mine, embedder.random_init(3) as its:
            assert (mine.embed(batch) * its.embed(batch)).sum() >= 0.9999


def test_what_it_is_called_and_that_it_is_the_same_space(openvino) -> None:
    with open_default("fp32") as full, open_default("bf16", **OPENVINO) as embedder:
        assert full.fingerprint("exact") == embedder.fingerprint("exact")
        assert full.provenance["runtime"].startswith("torch; openvino ")
        version = openvino.__version__.split("-")[0]
        assert embedder.provenance["runtime"] == f"openvino {version}"


_CTRL_C = """
import signal, sys, threading
import numpy as np
from vitmae_search.embedding import PluginHost, open_embedder

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
embedder = open_embedder(PluginHost(packages=False).get("vitmae"), {"runtime": "openvino"}, "cpu", "fp32")
embedder.embed(np.zeros((1, 64, 64, 3), np.uint8))
closing = threading.Thread(target=embedder.close)
closing.start()
closing.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_another_thread_has_closed_it(openvino) -> None:
    done = subprocess.run([sys.executable, "-c", _CTRL_C], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_telemetry_is_off(openvino, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = pytest.importorskip("openvino_telemetry")
    told: list[Any] = []
    for name in ("start_session", "send_event"):
        monkeypatch.setattr(telemetry.Telemetry, name, lambda *args, **_: told.append(args))
    open_default("fp32", **OPENVINO).close()
    assert told == []


def test_close_frees_the_encoder(openvino) -> None:
    plugin = load_drop_in(PLUGIN)
    options = {**plugin.info.options, **OPENVINO}
    embedder = plugin.open(options, device="cpu", precision="fp32")
    its = weakref.ref(embedder._encoder)
    embedder.embed(np.zeros((4, 64, 64, 3), np.uint8))
    embedder.close()
    gc.collect()
    assert its() is None


def test_a_library_continues_in_the_same_space(openvino, pixels, tmp_path: Path) -> None:
    for number, row in enumerate(pixels[:6]):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(row).save(tmp_path / f"{number % 2}" / f"{number}.png")
    model = {"layers": "6,last", "pooling": "mean"}
    query = Image.fromarray(pixels[7])

    def opened(options: dict[str, str] | None) -> Library:
        return Library.open(tmp_path / "library", options=options, device="cpu")

    with opened(model) as library:
        assert library.index(tmp_path / "0").added == 3
        spaces = [space.fingerprint for space in library.spaces()]
        before = library.search(query, k=3).hits
    with opened(OPENVINO) as library:
        for hits in (library.search(query, k=3).hits, library.search(query, k=3).hits):
            assert [hit.photo.path for hit in hits] == [hit.photo.path for hit in before]
        assert library.index([tmp_path / "0", tmp_path / "1"]).added == 3
    for options in (None, {"runtime": "torch"}, OPENVINO):
        with opened(options) as library:
            assert library.index(tmp_path / "0").unchanged == 3
            assert len(library.search(query).hits) == 6
            assert [space.fingerprint for space in library.spaces()] == spaces


# In long runs


def long_run(precision: str, **options: Any) -> GuardedEmbedder:
    embedder = open_default(precision, **options)
    engine: Any = embedder._embedder
    engine._engine.compile_after = 1e-9
    return embedder


def uses_openvino(embedder: GuardedEmbedder) -> bool:
    opened: Any = embedder._embedder
    return type(opened._engine._network.encoder).__name__ == "OpenVINOEncoder"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_long_run_goes_on_in_openvino_with_the_same_vectors(
    openvino, pixels, two_cores, precision: str
) -> None:
    pixels = pixels[::8]  # 16: a CPU without bf16 instructions is slow
    with open_default(precision, runtime="torch") as plain, long_run(precision) as embedder:
        expected = plain.embed(pixels)
        assert (embedder.embed(pixels[:4]) * expected[:4]).sum(axis=1).min() >= 0.99999
        assert not uses_openvino(embedder), "a query with its variants is answered at once"
        for _ in range(3):
            assert (embedder.embed(pixels) * expected).sum(axis=1).min() >= 0.9999
        assert uses_openvino(embedder)
    (kept,) = (settings().cache / "openvino").iterdir()
    with open_default(precision) as again:
        again.embed(pixels[:4])
        assert not uses_openvino(again), "a query with its variants does not wait for OpenVINO's import"
        again.embed(pixels)
        assert uses_openvino(again), "what was compiled before is used at once in a run"
        assert (again.embed(pixels) * expected).sum(axis=1).min() >= 0.9999
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(bytes(content))
    with open_default(precision) as again:
        again.embed(pixels)
        assert (again.embed(pixels) * expected).sum(axis=1).min() >= 0.9999
    assert kept.read_bytes() != bytes(content), "a damaged one is made again"


def test_a_short_run_does_not_compile(openvino, pixels) -> None:
    with open_default("fp32") as embedder:
        embedder.embed(pixels)
        assert not uses_openvino(embedder)
    assert not (settings().cache / "openvino").exists()


def test_only_the_newest_are_kept(openvino, pixels) -> None:
    for layer in range(1, 6):
        with long_run("fp32", layers=str(layer)) as embedder:
            embedder.embed(pixels[:16])
            assert uses_openvino(embedder)
    assert len(list((settings().cache / "openvino").iterdir())) == 4


@pytest.mark.parametrize("fault", ["error", "other vectors"])
def test_what_it_cannot_do_torch_goes_on_with(
    openvino, pixels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    with long_run("fp32") as embedder:
        opened: Any = embedder._embedder
        compiler = opened._engine._compiler

        def compile_encoder(self: Any) -> Any:
            if fault == "error":
                raise RuntimeError("no such operation\nat node 3")
            return type(
                "Encoder",
                (torch.nn.Module,),
                {"encode": lambda self, x, *_, **__: (torch.ones(len(x), 65, 192),)},
            )()

        monkeypatch.setattr(type(compiler), "compile", compile_encoder)
        with caplog.at_level(logging.WARNING):
            first = embedder.embed(pixels)
        assert np.array_equal(embedder.embed(pixels), first)
        assert not uses_openvino(embedder)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("OpenVINO is not used, so encoding takes longer: ")
    assert "\n" not in message


# Without it


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openvino" else find(name, *rest)
    )


def test_where_it_is_missing_the_extra_is_named(no_openvino) -> None:
    with pytest.raises(PluginOptionError, match=r"runtime=openvino.*pip install 'vitmae-search\[openvino\]'"):
        open_default("fp32", **OPENVINO)
    open_default("fp32").close()


def test_unknown_runtimes_are_refused() -> None:
    with pytest.raises(PluginOptionError, match="runtime='tpu' must be one of auto, torch, openvino"):
        open_default("fp32", runtime="tpu")


def test_it_is_for_the_cpu() -> None:
    plugin = load_drop_in(PLUGIN)
    plugin.open({**plugin.info.options}, device="cpu", precision="fp32").close()
    runtime = sys.modules[f"{type(plugin).__module__}.openvino"]
    with pytest.raises(DeviceError, match="on the CPU only; choose --device cpu, or runtime=torch"):
        runtime.require_openvino(torch.device("cuda"))


# int8

INT8 = {"quantization": "int8"}


def test_int8_keeps_the_vectors_directions_and_is_computed_in_whole_numbers(openvino, real_photos) -> None:
    photos = [Image.open(path).convert("RGB") for path in real_photos.values()]
    with open_default("fp32") as full, open_default("fp32", **INT8) as embedder:
        batch = np.stack([full.prepare(photo) for photo in photos])
        exact, found = full.embed(batch), embedder.embed(batch)
        assert 0.9995 < (exact * found).sum(axis=1).min() < 0.999999
        assert np.array_equal(embedder.embed(batch[2:3])[0], found[2]), "whatever the batch"
        assert full.fingerprint("exact") != embedder.fingerprint("exact")
        assert embedder.provenance["precision"] == "int8"
        opened: Any = embedder._embedder
        nodes = opened._encoder._compiled.get_runtime_model().get_ops()
    facts = [node.get_rt_info() for node in nodes]
    products = [fact["primitiveType"].value for fact in facts if fact["layerType"].value == "FullyConnected"]
    assert products
    if torch.cpu.get_capabilities().get("avx512_vnni"):
        assert all(kind.endswith("_I8") for kind in products), products
    with open_default("bf16", **INT8) as again:
        assert np.array_equal(again.embed(batch), found), "as compiled before, and in any other precision"


def test_int8_is_a_space_of_its_own_which_the_library_goes_on_in(openvino, pixels, tmp_path: Path) -> None:
    for number, row in enumerate(pixels[:4]):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(row).save(tmp_path / f"{number % 2}" / f"{number}.png")
    with Library.open(tmp_path / "library", device="cpu", precision="int8") as library:
        library.index(tmp_path / "0")
    with Library.open(tmp_path / "library", device="cpu") as library:
        assert library.index([tmp_path / "0", tmp_path / "1"]).added == 2
        spaces = {one.fingerprint for one in library.spaces()}
        hits = library.search(Image.fromarray(pixels[1]), k=1).hits
        assert hits[0].photo.path.endswith("1.png")
    with Library.open(tmp_path / "library", device="cpu", options={"quantization": "none"}) as library:
        library.index(tmp_path / "0")
        assert {one.fingerprint for one in library.spaces()} > spaces


def test_a_model_that_loses_too_much_in_int8_is_refused(openvino, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = load_drop_in(PLUGIN)
    module = sys.modules[f"{type(plugin).__module__}.quantization"]
    measure = module.Quantization.input_ranges
    monkeypatch.setattr(  # as a model would have whose inputs are large for few pictures
        module.Quantization,
        "input_ranges",
        lambda self, encoder: dict.fromkeys(measure(self, encoder), (-9e3, 9e3)),
    )
    with pytest.raises(
        PluginOptionError, match=r"quantization=int8: this model loses too much in int8 \(cos"
    ):
        plugin.open({**plugin.info.options, **INT8}, device="cpu", precision="fp32")
    assert not (settings().cache / "openvino").exists()


def test_int8_needs_openvino_and_says_so(no_openvino) -> None:
    with pytest.raises(
        PluginOptionError, match=r"quantization=int8 needs.*pip install 'vitmae-search\[openvino\]'"
    ):
        open_default("fp32", **INT8)
    with pytest.raises(PluginOptionError, match="quantization=int8 is OpenVINO's; leave runtime=torch out"):
        open_default("fp32", **INT8, runtime="torch")
    with pytest.raises(PluginOptionError, match="quantization='int4' must be one of none, int8"):
        open_default("fp32", quantization="int4")


@pytest.mark.parametrize(
    ("capabilities", "warns"), [({"avx2": True}, True), ({"avx2": True, "avx_vnni": True}, False)]
)
def test_int8_warns_where_it_gains_nothing(
    capabilities: dict[str, bool],
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = load_drop_in(PLUGIN)
    plugin.open({**plugin.info.options}, device="cpu", precision="fp32").close()
    devices = sys.modules[f"{type(plugin).__module__}.devices"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    devices.warn_without_int8(torch.device("cpu"))
    assert [record.getMessage() for record in caplog.records] == warns * [
        "This CPU has no VNNI instructions, so int8 is no faster here than fp32"
    ]


def test_several_threads_may_make_the_first_inferences(openvino) -> None:
    """In a new process: OpenVINO sets up once what its Python part shares, and two threads at that hung."""
    program = """
import subprocess
import sys
import numpy as np
import torch
from vitmae_search.embedding import PluginHost, open_embedder
torch.set_num_threads(8)
sys.setswitchinterval(1e-6)
plugin = PluginHost(packages=False).get("vitmae")
with open_embedder(plugin, {"runtime": "openvino"}, "cpu", "fp32") as embedder:
    print(embedder.embed(np.zeros((16, 64, 64, 3), np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == "(16, 384)", done.stderr
