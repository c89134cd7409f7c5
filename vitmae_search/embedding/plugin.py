"""What an embedding plugin is.

A plugin is a module (a file or a folder with `__init__.py`) that has an attribute `plugin`, an object
with `.info` and `.open()`. It needs nothing but this file; `plugins/color_layout` is a worked example,
and `vitmae_search.embedding.testing` checks a plugin of your own.

Importing a plugin must stay cheap: torch and weights are loaded in `open`, never before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.records import ModelListing, Reconstruction

API_VERSION = 1
"""Goes up when a plugin that is written for it would no longer work. What is added and optional leaves it."""

CAPABILITIES = frozenset({"embed", "reconstruct", "patch_tokens", "classify"})
"""What a plugin may say that it can do; "embed" always."""

Options = Mapping[str, str | int | float | bool]
"""Plugin options: names to plain values. A value has the type of its default."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a plugin says of itself without loading anything heavy.

    `vector_revision` goes up whenever the same weights and options would give other vectors.
    `capabilities` is a subset of `CAPABILITIES`.
    `options` maps each option to its default, whose type is the option's type.
    """

    name: str
    title: str
    api_version: int = API_VERSION
    vector_revision: int = 1
    capabilities: frozenset[str] = frozenset({"embed"})
    options: Options = field(default_factory=dict)


class Prepare(Protocol):
    """RGB image to an array of one fixed shape, uint8 or float32. Picklable, torch-free, thread-safe.

    A function of the plugin's module, or an instance of a class of it; a lambda or closure does not pickle.
    It must not change `image`. Drop-in plugins pickle too: the host sends their path along.
    """

    def __call__(self, image: Image.Image, /) -> NDArray[Any]: ...


class Embedder(Protocol):
    """An open model. `embed` is called by one thread at a time, `prepare` by many.

    The properties may be plain attributes.
    """

    @property
    def model(self) -> str:
        """A short name for people."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON: everything that decides the vectors, and nothing that does not.

        The weights' digest, config, preprocessing, layers, pooling; not paths, device or batch size. The
        host adds the plugin's name and vector revision and hashes it.
        """
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """JSON: how it runs ("device", "precision", library versions). Recorded, not hashed."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    @property
    def input_size(self) -> int | None:
        """The side in pixels that `prepare` needs at least, so that the decoder may scale down first.

        None means that it needs the whole picture.
        """
        ...

    @property
    def prepare(self) -> Prepare:
        """From image to array."""
        ...

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape of prepare) to (N, dimension) float32: C-contiguous, finite, rows of unit length.

        Row i belongs to batch[i] and does not depend on the others. The array is new at every call, and
        `batch` stays as it was until the call returns; then the host may use its memory again. Raises
        MemoryError where the batch is too large for the device.
        """
        ...

    def close(self) -> None:
        """Give memory back. The embedder is not used again."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """An embedder that can also show what it sees (capability "reconstruct")."""

    def reconstruct(
        self,
        image: Image.Image,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """Hide patches of an RGB image and fill them in again.

        `mask` (gh, gw), True = removed, overrides `mask_ratio` (0 ≤ r < 1) and `seed`.
        Raises `errors.NoDecoder` where the checkpoint is an encoder alone.
        """
        ...


@runtime_checkable
class Untrained(Protocol):
    """An embedder that also has a twin from before any training, which says what the training is worth."""

    def untrained(self, seed: int) -> Embedder:
        """The same network and preprocessing with the weights that a training would begin with.

        Layers, pooling, device and precision are its own too. `seed` alone decides the weights. The
        embedder stays open and as it was; the caller closes the twin.
        """
        ...


@runtime_checkable
class Choosing(Protocol):
    """An embedder some of whose options may leave a choice to it, or to the model's files ("auto")."""

    @property
    def chosen_options(self) -> Options:
        """What was chosen, by option: with these it opens as it is, whatever comes to lie beside the model.

        The host keeps them with the vectors, so that a space goes on with the features that it has. Once the
        model itself has changed, what was left to it is left to it again.
        """
        ...


@runtime_checkable
class Projecting(Protocol):
    """An embedder whose model comes with a projection: a whitening, or a head that was trained for it.

    `embed` gives features as ever. The host stores them, applies the projection, and searches among what
    it gives; a person may choose another one, or none, and nothing is embedded again.
    """

    @property
    def projection(self) -> str | None:
        """The absolute path of a file that `Projection.save` wrote; None where these options have none.

        It takes features of the embedder's dimension. It is no part of `identity`, which is the features'.
        """
        ...


@runtime_checkable
class FromFiles(Protocol):
    """An embedder that its options, its plugin's code and some files decide, and nothing else.

    The host then remembers what it is. While code and files are as they were, it knows which space the
    vectors belong to without opening it: photos that have not changed are passed over in seconds.
    """

    @property
    def source_files(self) -> Sequence[str] | None:
        """Absolute paths of all that its attributes were read from; of folders that were looked into, too.

        A path may lead nowhere, which is what it stands for then. None where it cannot tell, and is opened
        each time.
        """
        ...


@runtime_checkable
class Batching(Protocol):
    """An embedder or classifier that knows how many photos one call of it should have.

    Without it, and where the person does not say, calls are small: few photos lose little when a run is
    killed, but do not fill a GPU.
    """

    @property
    def batch_size(self) -> int:
        """How many photos of one `embed` or `classify` suit the device, above 0.

        The host keeps to it, but for a run's last photos, and where so many prepared photos would take too
        much of its memory.
        """
        ...


@runtime_checkable
class Resting(Protocol):
    """An embedder or classifier that can do without its device's memory while nobody asks it anything."""

    def rest(self) -> None:
        """Give the device's memory back until the next call of another method, which takes it again.

        Vectors, reconstructions and probabilities are the same afterwards. It comes between other calls,
        never beside one, perhaps several times in a row, and not after `close`. `prepare` goes on.
        """
        ...


class Classifier(Protocol):
    """An open classifier. `classify` is called by one thread at a time, `prepare` by many.

    What it shares with `Embedder` means the same: model, provenance, input_size, prepare, close.
    """

    @property
    def model(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON: everything that decides the probabilities, and nothing that does not."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    @property
    def labels(self) -> Sequence[str]:
        """The names of the classes, in the order of the columns. A name may come more than once."""
        ...

    @property
    def input_size(self) -> int | None: ...

    @property
    def prepare(self) -> Prepare: ...

    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape of prepare) to (N, len(labels)) float32 probabilities: each row is ≥ 0 and sums to 1.

        C-contiguous and new at every call. Row i belongs to batch[i] and does not depend on the others.
        Raises MemoryError where the batch is too large for the device.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class ClassifierOpener(Protocol):
    """A plugin that can also put photos into classes (capability "classify")."""

    def open_classifier(self, model: str, *, device: str, precision: str) -> Classifier:
        """Load a classifier: `model` is a name or path, the others as for `EmbedderPlugin.open`.

        Raises `errors.VitmaeSearchError` for what a person can mend, such as a model that is none.
        """
        ...


class EmbedderPlugin(Protocol):
    """What the module's attribute `plugin` must be."""

    @property
    def info(self) -> PluginInfo: ...

    def open(self, options: Options, *, device: str, precision: str) -> Embedder:
        """Load the model.

        `options` has every key of `info.options`, checked by the host. `device` is auto, cpu, cuda,
        cuda:N or mps; `precision` is auto, fp32 or bf16. Raises `errors.VitmaeSearchError` for what a
        person can mend.
        """
        ...


@runtime_checkable
class ModelLister(Protocol):
    """A plugin that can name models for its option `model`."""

    def models(self) -> list[ModelListing]:
        """The models that a person may choose, without opening or downloading any."""
        ...
