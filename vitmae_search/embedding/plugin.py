"""The plugin contract: all that an embedding plugin is, and all that it may offer.

A plugin is a module (a `.py` file, or a folder with `__init__.py`) with an attribute `plugin`, an instance of
a subclass of `EmbedderPlugin`. Its `open` returns an instance of a subclass of `Embedder`. Whatever has a
value or a body here is optional: override it to offer more. `docs/plugins.md` is a tutorial,
`plugins/color_layout` a complete example, and `vitmae_search.embedding.testing` checks a plugin.

Importing a plugin must stay cheap: torch and weights are loaded in `open`, never before.

Plugins inherit, and are not recognized by their methods' names, so that every optional member has its default
in one place, a missing method is reported when the plugin is loaded, and type checkers see the signatures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import NoText
from vitmae_search.records import ModelListing, Reconstruction

API_VERSION = 1
"""Goes up when existing plugins would stop working. A new optional member leaves it as it is."""

CAPABILITIES = frozenset({"embed", "reconstruct", "classify"})
"""What `PluginInfo.capabilities` may contain; "embed" always."""

Options = Mapping[str, str | int | float | bool]
"""Plugin options: names to plain values. A value has the type of its default."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a plugin says of itself without loading anything heavy.

    Attributes:
        name: Letters, digits, `_`, `-` and `.`; what `--embedder` takes.
        title: One line for people.
        api_version: The `API_VERSION` that the plugin is written for.
        vector_revision: From 1; goes up whenever the same weights and options would give other vectors.
        capabilities: A subset of `CAPABILITIES`.
        options: Each option's name and default, whose type is the option's type.
    """

    name: str
    title: str
    api_version: int = API_VERSION
    vector_revision: int = 1
    capabilities: frozenset[str] = frozenset({"embed"})
    options: Options = field(default_factory=dict)


class EmbedderPlugin(ABC):
    """A plugin: opens embedders, and perhaps classifiers. The module's attribute `plugin` is one."""

    info: PluginInfo
    """Name, options and capabilities; read without opening a model."""

    @abstractmethod
    def open(self, options: Options, *, device: str, precision: str) -> Embedder:
        """Load the model.

        Args:
            options: Every key of `info.options`, with values that the host has checked.
            device: auto, cpu, cuda, cuda:N or mps.
            precision: auto, fp32 or bf16.

        Raises:
            VitmaeSearchError: For what a person can mend; see `vitmae_search.errors`.
        """

    def models(self) -> list[ModelListing]:
        """The models that a person may choose for the option `model`. Opens and downloads none."""
        return []

    def open_classifier(self, model: str, *, device: str, precision: str) -> Classifier:
        """Load a classifier. Override it with the capability "classify".

        Args:
            model: A name or path.
            device: As for `open`.
            precision: As for `open`.

        Raises:
            VitmaeSearchError: For what a person can mend, such as a model without a classifier.
        """
        raise NotImplementedError


class Prepare(Protocol):
    """RGB image to an array of one fixed shape, uint8 or float32. Picklable, torch-free, thread-safe.

    It runs in many threads and in processes without torch, so it must not carry the network: use a function
    of the plugin's module, or an instance of a class of it. A method of the embedder would pickle the
    embedder, and a lambda or closure does not pickle at all. It must not change `image`.
    """

    def __call__(self, image: Image.Image, /) -> NDArray[Any]:
        """Prepare one image."""
        ...


class OpenModel(ABC):
    """What open embedders and classifiers have in common. The attributes may be properties."""

    model: str
    """A short name for people."""

    identity: Mapping[str, Any]
    """JSON: everything that decides the vectors, or probabilities, and nothing that does not.

    The weights' digest, config, preprocessing, layers, pooling; not paths, device or batch size. The host
    adds the plugin's name and vector revision, and hashes it.
    """

    prepare: Prepare
    """From an image to the array of which batches are made. In a class body: `prepare = staticmethod(f)`."""

    input_size: int | None = None
    """The side in pixels that `prepare` needs at least, so that the decoder may scale photos down before it.

    None means that it needs the whole photo.
    """

    provenance: Mapping[str, Any] = MappingProxyType({})
    """JSON: how it runs ("device", "precision", library versions). Recorded with the vectors, not hashed."""

    batch_size: int | None = None
    """How many photos of one call suit the device. None: small batches, which do not fill a GPU.

    The host takes fewer at the end of a run, and where that many would take too much of its memory.
    """

    def offload(self) -> None:
        """Give the device's memory back until the next call of another method, which takes it again.

        Results are the same afterwards. The host calls it between other calls, never beside one, perhaps
        several times in a row, and not after `close`. `prepare` continues to work.
        """
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - nothing to do is a good default
        """Give memory back. It may be called twice; nothing else is called afterwards."""


class Embedder(OpenModel):
    """An open model that turns photos into vectors. One thread at a time calls it, many call `prepare`."""

    dimension: int
    """The number of components of a vector."""

    @abstractmethod
    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape of prepare) to (N, dimension) float32: C-contiguous, finite, rows of norm 1.

        `batch` may be read-only, and its memory is used again after the call. Row i belongs to batch[i] and
        does not depend on the others. The array is new at every call. Raises MemoryError where the batch is
        too large for the device; the host then tries a smaller one.
        """

    source_files: Sequence[str] | None = None
    """Absolute paths of all files and folders that its attributes were read from; they need not exist.

    Give them where options, code and these files alone decide the embedder. The host then remembers what it
    is, and passes over unchanged photos without opening it. None: it is opened each time.
    """

    resolved_options: Options = MappingProxyType({})
    """The values chosen for options that were given as "auto". Opening with them gives the same embedder.

    The host keeps them with the vectors, so that a space goes on with the features that it has.
    """

    projection: str | None = None
    """The absolute path of a file that `Projection.save` wrote, for a model that comes with a projection.

    It takes the vectors of `embed`, which the host stores, and is no part of `identity`.
    """

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Words to a vector (dimension,) float32 of norm 1, in the space of the photos' vectors.

        Override it where the model was trained on photos with texts, as CLIP was; photos are then found by
        words, too. What decides texts alone, such as a tokenizer, is no part of `identity`. The host calls
        it with one line of text that is not blank, one thread at a time.

        Raises:
            NoText: The model does not know words.
        """
        raise NoText(f"{self.model} does not know words: it was trained on pictures alone")

    def random_init(self, seed: int) -> Embedder:
        """The same network before training: new random weights, drawn with `seed` alone.

        `evaluate` measures with it what the training is worth. Layers, pooling, preprocessing, device and
        precision are the same. This embedder stays open; the caller closes the other one.
        """
        raise NotImplementedError

    def reconstruct(
        self,
        image: Image.Image,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """Hide patches of an image and fill them in again. Override it with the capability "reconstruct".

        Args:
            image: RGB.
            mask_ratio: The share of patches to hide, 0 ≤ r < 1.
            seed: Decides which.
            mask: (gh, gw), True = hidden; overrides `mask_ratio` and `seed`.

        Raises:
            NoDecoder: Where the checkpoint is an encoder alone.
        """
        raise NotImplementedError

    def patch_tokens(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """What the model sees in each patch of images: (N, rows, columns, C) float32, finite.

        The grid covers each whole image, whatever its shape, from its top left corner; it is the same for all
        images and in all calls. Searches for a part of a photo compare these tokens; without them they
        compare vectors alone.

        Args:
            images: RGB, of any sizes, 1 or more.
        """
        raise NotImplementedError


class Classifier(OpenModel):
    """An open model that puts photos into classes. One thread at a time calls it, many call `prepare`."""

    labels: Sequence[str]
    """The names of the classes, in the order of the columns. A name may come more than once."""

    @abstractmethod
    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape of prepare) to (N, len(labels)) float32 probabilities: each row is ≥ 0 and sums to 1.

        C-contiguous; all else as for `Embedder.embed`.
        """


def overrides(instance: object, base: type, method: str) -> bool:
    """Whether an instance of `base` has its own version of an optional method.

    Args:
        instance: An `EmbedderPlugin`, `Embedder` or `Classifier`.
        base: The class of the contract that defines the method.
        method: The method's name.
    """
    return getattr(getattr(instance, method), "__func__", None) is not getattr(base, method)
