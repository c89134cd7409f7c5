"""The checks of an embedder, in the order in which to fix what they find."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding.fingerprint import canonical_json
from vitmae_search.embedding.guard import GuardedEmbedder
from vitmae_search.embedding.plugin import OpenModel, overrides
from vitmae_search.embedding.testing.images import flat_images, odd_images, sample_images
from vitmae_search.embedding.testing.plugin_under_test import ConformanceError, PluginUnderTest
from vitmae_search.errors import NoDecoder, PluginBroken, VitmaeSearchError

FP32_TOLERANCE = 1e-6
"""How much a component of a vector in fp32 may change with the rest of the batch."""
BF16_COSINE = 0.9999
"""The least cosine between two vectors in bf16 of one image."""
_DIFFERENT = 1e-5
"""The vectors of two images differ by more than this in some component; rounding stays below."""

_TEXTS = ("a red bicycle", "the night sky over a city")

_NOT_IN_IDENTITY = {"device", "batch_size", "path", "file", "folder"}


def check_listing_is_cheap(subject: PluginUnderTest) -> None:
    """Importing the plugin and reading its `info` loads neither torch nor any other heavy package."""
    loaded = subject.in_fresh_process("loaded_by_listing")
    _require(not loaded, f"importing the plugin loads {', '.join(loaded)}; import it inside open()")


def check_opens(subject: PluginUnderTest) -> None:
    """`open` gives an embedder whose attributes keep the contract."""
    guarded = subject.guarded
    _require(guarded.info == subject.info, "plugin.info changes from call to call")


def check_prepare_has_one_shape(subject: PluginUnderTest) -> None:
    """`prepare` gives one shape and dtype, finite, for an image of any size, even one pixel wide."""
    for image in [*odd_images(), *sample_images()]:
        array = subject.guarded.prepare(image)
        _require(bool(np.isfinite(array).all()), f"prepare gives NaN or infinity for {image.size}")


def check_prepare_leaves_the_image(subject: PluginUnderTest) -> None:
    """`prepare` does not change its image."""
    for image in sample_images():
        before = image.tobytes()
        subject.embedder.prepare(image)
        _require(image.tobytes() == before, "prepare changes the image")


def check_prepare_can_be_pickled(subject: PluginUnderTest) -> None:
    """`prepare` pickles without the embedder, and gives the same in a process that has no torch."""
    owner = getattr(subject.embedder.prepare, "__self__", None)
    _require(
        owner is not subject.embedder,
        "prepare is a method of the embedder, which would be pickled with its network; make it a function "
        "of the module (`prepare = staticmethod(f)`)",
    )
    payload = pickle.dumps(subject.guarded.prepare)
    there = subject.in_fresh_process("prepare_without_torch", payload)
    for index, (a, b) in enumerate(zip(there, subject.batch, strict=True)):
        _require(np.array_equal(a, b), f"prepare gives another array in a fresh process for image {index}")


def check_prepare_in_threads(subject: PluginUnderTest) -> None:
    """`prepare` in many threads at once gives the same as in one; no array is overwritten later."""
    images = sample_images() * 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(subject.embedder.prepare, images))
    for index, array in enumerate(together):
        same = np.array_equal(array, subject.batch[index % len(subject.batch)])
        _require(same, f"prepare gives another array in threads for image {index}")


def check_vectors(subject: PluginUnderTest) -> None:
    """`embed` gives (N, dimension) float32, C-contiguous, finite, of norm 1, for any N."""
    for rows in (1, 2, len(subject.batch)):
        subject.guarded.embed(subject.batch[:rows])


def check_odd_images_have_vectors(subject: PluginUnderTest) -> None:
    """An image of one color, or one pixel wide, has a vector too."""
    for image in [*flat_images(), *odd_images()]:
        try:
            subject.guarded.embed(subject.guarded.prepare(image)[None])
        except PluginBroken as error:
            kind = "one color" if image.getcolors(1) else f"{image.width} × {image.height} pixels"
            raise ConformanceError(f"{error} (an image of {kind})") from error


def check_batches_may_be_read_only(subject: PluginUnderTest) -> None:
    """`embed` takes a read-only batch, and gives the vectors that it gives of any other."""
    assert not subject.batch.flags.writeable
    writable = subject.embedder.embed(subject.batch.copy()).copy()
    try:
        read_only = subject.embedder.embed(subject.batch)
    except Exception as error:
        raise ConformanceError(
            f"embed fails on a read-only batch: {type(error).__name__}: {error}; copy what you change"
        ) from error
    _require_same(subject, read_only, writable, "of a read-only batch")


def check_batches_stay_as_they_are(subject: PluginUnderTest) -> None:
    """`embed` does not change its batch, which the host may hand over again."""
    batch = subject.batch.copy()
    subject.embedder.embed(batch)
    _require(np.array_equal(batch, subject.batch), "embed changes the batch")


def check_results_are_new(subject: PluginUnderTest) -> None:
    """An earlier result is not overwritten by a later call, and shares no memory with it."""
    batch = subject.batch.copy()
    first = subject.embedder.embed(batch)
    kept = first.copy()
    second = subject.embedder.embed(batch[::-1].copy())
    same_memory = np.shares_memory(first, second) or not np.array_equal(first, kept)
    _require(not same_memory, "embed writes into an array that it returned before; return a new one")


def check_batch_composition_does_not_matter(subject: PluginUnderTest) -> None:
    """An image's vector is the same alone, among others, beside its own copies, and on the next call."""
    together = subject.embedder.embed(subject.batch)
    _require_same(subject, subject.embedder.embed(subject.batch), together, "on the second call")
    for index, row in enumerate(subject.batch):
        alone = subject.embedder.embed(row[None])
        _require_same(subject, alone, together[index : index + 1], f"for image {index} alone")
    copies = subject.embedder.embed(np.repeat(subject.batch[:1], 5, axis=0))
    _require_same(subject, copies, np.repeat(together[:1], 5, axis=0), "beside copies of itself")


def check_rows_stay_aligned(subject: PluginUnderTest) -> None:
    """Row i is the vector of image i: a batch in another order gives the rows in that order."""
    together = subject.embedder.embed(subject.batch)
    order = np.random.default_rng(0).permutation(len(subject.batch))
    shuffled = subject.embedder.embed(np.ascontiguousarray(subject.batch[order]))
    _require_same(subject, shuffled, together[order], "in another order")


def check_different_images_differ(subject: PluginUnderTest) -> None:
    """Different images have different vectors."""
    _require_different(subject.embedder.embed(subject.batch))


def check_same_in_another_process(subject: PluginUnderTest) -> None:
    """A fresh process gives the same vectors and the same identity."""
    vectors, identity = subject.in_fresh_process("embed")
    _require_same(subject, vectors, subject.embedder.embed(subject.batch), "in a fresh process")
    same = canonical_json(identity) == canonical_json(subject.guarded.identity)
    _require(same, "identity changes in a fresh process")


def check_identity(subject: PluginUnderTest) -> None:
    """`identity` is plain JSON, the same at every opening, and says nothing of paths or devices."""
    identity = subject.guarded.identity
    with subject.open() as again:
        _require(canonical_json(again.identity) == canonical_json(identity), "identity changes")
    private = {os.path.expanduser("~"), os.getcwd(), tempfile.gettempdir(), *_option_paths(subject)} - {"/"}
    for place, value in _leaves(identity, "identity"):
        name = place.rpartition(".")[2]
        _require(name not in _NOT_IN_IDENTITY, f"{place} does not belong to the identity; see provenance")
        if isinstance(value, str):
            is_path = os.path.isabs(value) or any(path in value for path in private)
            _require(not is_path, f"{place} is a path: {value!r}")


def check_identity_covers_options(subject: PluginUnderTest) -> None:
    """Another value of an option that gives other vectors gives another identity too.

    Booleans and numbers are tried; only the plugin knows which strings make sense.
    """
    before = subject.embedder.embed(subject.batch)
    for name, value in subject.guarded.options.items():
        for other in _other_values(value):
            try:
                changed = subject.open({**subject.guarded.options, name: other})
            except VitmaeSearchError:
                continue
            with changed:
                same = canonical_json(changed.identity) == canonical_json(subject.guarded.identity)
                _require(
                    not same or _same_vectors(changed, before),
                    f"with {name}={other!r} the vectors change and identity does not; make {name} part of it",
                )


def _other_values(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2]
    return []


def _same_vectors(embedder: GuardedEmbedder, vectors: NDArray[np.float32]) -> bool:
    found = embedder.embed(np.stack([embedder.prepare(image) for image in sample_images()]))
    return found.shape == vectors.shape and float(np.abs(found - vectors).max()) <= _DIFFERENT


def check_options(subject: PluginUnderTest) -> None:
    """With the options that the host keeps, `resolved_options` among them, it opens as it was."""
    kept = subject.guarded.options
    with subject.open(kept) as again:
        _require(again.options == kept, f"opened with {kept} it has {again.options}")
        same = canonical_json(again.identity) == canonical_json(subject.guarded.identity)
        _require(same, f"identity changes with {kept}, the options that it resolved")


def check_reconstruction(subject: PluginUnderTest) -> None:
    """Reconstructions have fitting panels, are the same for the same seed, and use the given mask."""
    if not subject.guarded.can_reconstruct:
        return
    image = sample_images()[0]
    try:
        first = subject.guarded.reconstruct(image, mask_ratio=0.5, seed=3)
    except NoDecoder:
        return
    again = subject.guarded.reconstruct(image, mask_ratio=0.5, seed=3)
    _require(np.array_equal(first.mask, again.mask), "one seed gives two masks")
    _require(np.array_equal(first.reconstruction, again.reconstruction), "one seed gives two reconstructions")
    painted = subject.guarded.reconstruct(image, mask=~first.mask)
    _require(np.array_equal(painted.mask, ~first.mask), "the given mask is not used")


def check_patch_tokens(subject: PluginUnderTest) -> None:
    """A plugin with `patch_tokens` gives one grid for all images, the same for an image alone and later."""
    if not subject.guarded.has_patch_tokens:
        return
    images = [*sample_images(), *odd_images()]
    together = subject.guarded.patch_tokens(images)
    for index, image in enumerate(images):
        alone = subject.guarded.patch_tokens([image])
        _require(alone.shape[1:] == together.shape[1:], "patch_tokens gives another grid for an image alone")
        lengths = np.linalg.norm(alone) * np.linalg.norm(together[index])
        cosine = float((alone[0] * together[index]).sum(dtype=np.float64) / max(lengths, 1e-12))
        _require(
            cosine >= BF16_COSINE or not lengths, f"patch_tokens changes for image {index} beside others"
        )


def check_projection(subject: PluginUnderTest) -> None:
    """A projection's file is sound, takes the embedder's vectors, and keeps different images apart."""
    projection = subject.guarded.own_projection()
    if projection is None:
        return
    _require_different(projection(subject.guarded.embed(subject.batch)), "after the projection, ")
    with subject.open() as again:
        _require(
            again.projection == subject.guarded.projection, "projection changes from one opening to the next"
        )


def check_source_files(subject: PluginUnderTest) -> None:
    """`source_files` are the same at each opening."""
    with subject.open(subject.guarded.options) as again:
        same = again.source_files == subject.guarded.source_files
        _require(same, "source_files change from one opening to the next")


def check_text(subject: PluginUnderTest) -> None:
    """`embed_text` takes any line of text, and gives each its own vector, the same each time."""
    if not subject.guarded.knows_words:
        return
    before = subject.embedder.embed(subject.batch)
    for text in ("é 猫 🚲", "?!", "many words " * 90):
        subject.guarded.embed_text(text)
    first, second = (subject.guarded.embed_text(text)[None] for text in _TEXTS)
    different = float(np.abs(first - second).max()) > _DIFFERENT
    _require(different, f"embed_text gives {' and '.join(map(repr, _TEXTS))} one and the same vector")
    again = subject.guarded.embed_text(_TEXTS[0])[None]
    _require_same(subject, again, first, "for the same text", "embed_text")
    with subject.open() as other:
        _require_same(subject, other.embed_text(_TEXTS[0])[None], first, "opened again", "embed_text")
    _require_same(subject, subject.embedder.embed(subject.batch), before, "after embed_text")


def check_random_init(subject: PluginUnderTest) -> None:
    """A plugin with `random_init` gives the same network for a seed, which takes the same batches."""
    untrained = subject.guarded.random_init(3)
    if untrained is None:
        return
    before = subject.embedder.embed(subject.batch)
    with untrained:
        same = untrained.identity == subject.guarded.identity
        _require(not same, "the randomly initialized network has the model's identity")
        vectors = untrained.embed(subject.batch)
    with subject.open() as other:
        again = other.random_init(3)
        assert again is not None
        _require_same(subject, again.embed(subject.batch), vectors, "of random_init with the same seed")
        again.close()
    after = subject.embedder.embed(subject.batch)
    _require_same(subject, after, before, "after the network of random_init was closed")


def check_offload(subject: PluginUnderTest) -> None:
    """A plugin with `offload` embeds and reconstructs as before, also after it is called unused or twice."""
    before = subject.embedder.embed(subject.batch)
    with subject.open() as guarded:
        other = guarded._embedder
        if not overrides(other, OpenModel, "offload"):
            return
        other.offload()
        _require_same(subject, other.embed(subject.batch), before, "after offload")
        reconstructed = _pasted(guarded)
        other.offload()
        other.offload()
        _require_same(subject, other.embed(subject.batch), before, "after a second offload")
        other.offload()
        same = np.array_equal(reconstructed, _pasted(guarded))
        _require(same, "after offload, one seed gives another picture")
        other.offload()
    after = subject.embedder.embed(subject.batch)
    _require_same(subject, after, before, "after another embedder was offloaded")


def check_close(subject: PluginUnderTest) -> None:
    """`close` may be called twice, and leaves other open embedders alone."""
    before = subject.embedder.embed(subject.batch)
    other = subject.open()._embedder
    other.close()
    other.close()
    _require_same(subject, subject.embedder.embed(subject.batch), before, "after another was closed")


Check = Callable[[PluginUnderTest], None]

CHECKS: tuple[Check, ...] = (
    check_listing_is_cheap,
    check_opens,
    check_prepare_has_one_shape,
    check_prepare_leaves_the_image,
    check_prepare_can_be_pickled,
    check_prepare_in_threads,
    check_vectors,
    check_odd_images_have_vectors,
    check_batches_may_be_read_only,
    check_batches_stay_as_they_are,
    check_results_are_new,
    check_batch_composition_does_not_matter,
    check_rows_stay_aligned,
    check_different_images_differ,
    check_same_in_another_process,
    check_identity,
    check_identity_covers_options,
    check_options,
    check_reconstruction,
    check_patch_tokens,
    check_projection,
    check_source_files,
    check_text,
    check_random_init,
    check_offload,
    check_close,
)
"""Every check: a function of a `PluginUnderTest` that raises where the plugin breaks the contract."""


def failures(subject: PluginUnderTest) -> dict[str, Exception]:
    """The checks that fail, by name, with what they raised."""
    failed: dict[str, Exception] = {}
    for check in CHECKS:
        try:
            check(subject)
        except Exception as error:
            failed[check.__name__] = error
    return failed


def check_embedder(
    source: str | os.PathLike[str],
    options: Mapping[str, object] | None = None,
    *,
    device: str = "cpu",
    precision: str = "auto",
) -> None:
    """Run every check.

    Args:
        source: As for `PluginUnderTest`.
        options: As for `PluginUnderTest`.
        device: As for `open_embedder`.
        precision: As for `open_embedder`.

    Raises:
        ConformanceError: With all failures.
    """
    with PluginUnderTest(source, options, device=device, precision=precision) as subject:
        failed = failures(subject)
    if failed:
        lines = [f"  {name}: {type(error).__name__}: {error}" for name, error in failed.items()]
        error = ConformanceError("\n".join([f"{len(failed)} of {len(CHECKS)} checks fail:", *lines]))
        raise error from next(iter(failed.values()))


def _pasted(guarded: GuardedEmbedder) -> NDArray[np.uint8]:
    """A reconstruction with the visible patches pasted back; empty where there is no decoder."""
    try:
        return guarded.reconstruct(sample_images()[0], seed=3).pasted
    except NoDecoder:
        return np.empty(0, np.uint8)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


def _require_same(
    subject: PluginUnderTest,
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    when: str,
    method: str = "embed",
) -> None:
    _require(a.shape == b.shape, f"{when}, {method} gives shape {a.shape}, not {b.shape}")
    if subject.guarded.provenance.get("precision", "fp32") == "fp32":
        worst = float(np.abs(a.astype(np.float64) - b).max())
        _require(worst <= FP32_TOLERANCE, f"{when}, a vector differs by {worst:.2g}")
    else:
        worst = float(np.einsum("nd,nd->n", a.astype(np.float64), b).min())
        _require(worst >= BF16_COSINE, f"{when}, a vector differs: cosine {worst:.6f}")


def _require_different(vectors: NDArray[np.float32], when: str = "") -> None:
    for i in range(len(vectors)):
        for j in range(i):
            differ = float(np.abs(vectors[i] - vectors[j]).max()) > _DIFFERENT
            _require(differ, f"{when}images {j} and {i} have one and the same vector")


def _leaves(value: object, place: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, place)
    else:
        yield place, value


def _option_paths(subject: PluginUnderTest) -> list[str]:
    values = [value for value in subject.options.values() if isinstance(value, str | Path)]
    return [os.path.abspath(value) for value in values if os.path.exists(value)]
