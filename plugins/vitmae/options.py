"""The values that the plugin's options may have. Needs no torch, so that a mistake is reported at once."""

from __future__ import annotations

from vitmae_search.embedding import Options
from vitmae_search.errors import PluginOptionError

NAME = "vitmae"
AUTO = "auto"
POOLINGS = ("cls", "mean", "gem", "moments", "grid")
VIEWS = ("1", "flip", "five")
RUNTIMES = ("auto", "torch", "openvino")
QUANTIZATIONS = ("none", "int8")


def check_options(options: Options) -> None:
    """Raise `PluginOptionError` for values that fit no model at all."""
    if options["pooling"] != AUTO:
        check_pooling(str(options["pooling"]))
    if options["layers"] != AUTO:
        _layer_numbers(str(options["layers"]))
    if float(options["gem_power"]) <= 0:
        raise PluginOptionError(NAME, f"gem_power={options['gem_power']} must be above 0")
    if int(options["image_size"]) < 0:
        raise PluginOptionError(NAME, f"image_size={options['image_size']} must be 0 or a side in pixels")
    if options["views"] not in VIEWS:
        raise PluginOptionError(NAME, f"views={options['views']!r} must be one of {', '.join(VIEWS)}")
    if options["runtime"] not in RUNTIMES:
        raise PluginOptionError(NAME, f"runtime={options['runtime']!r} must be one of {', '.join(RUNTIMES)}")
    quantization = options["quantization"]
    if quantization not in QUANTIZATIONS:
        rule = f"must be one of {', '.join(QUANTIZATIONS)}"
        raise PluginOptionError(NAME, f"quantization={quantization!r} {rule}")
    if quantization != "none" and options["runtime"] == "torch":
        raise PluginOptionError(NAME, f"quantization={quantization} is OpenVINO's; leave runtime=torch out")


def check_pooling(text: str) -> None:
    """Raise `PluginOptionError` for an unknown pooling, or one that is named twice."""
    parts = text.split("+")
    if not set(parts) <= set(POOLINGS):
        rule = f"must be one of {', '.join(POOLINGS)}, or several with a plus sign, or auto"
        raise PluginOptionError(NAME, f"pooling={text!r} {rule}")
    if len(set(parts)) < len(parts):
        raise PluginOptionError(NAME, f"pooling={text!r} names a pooling twice")


def parse_layers(text: str, depth: int, pooling: str) -> tuple[int, ...]:
    """The option "layers" as layer numbers, 0 (the embeddings) to `depth`, in the order given.

    Args:
        text: "last", "-1" or "3,6,9".
        depth: The model's number of layers.
        pooling: The option "pooling": the CLS token has no layer 0.

    Raises:
        PluginOptionError: For anything else, for a layer named twice, and for layer 0 with "cls".
    """
    layers = tuple(number + depth + 1 if number < 0 else number for number in _layer_numbers(text))
    for number, layer in zip(_layer_numbers(text), layers, strict=True):
        if not 0 <= layer <= depth:
            rule = f"there is no layer {number}; the model has {depth}"
            raise PluginOptionError(NAME, f"layers={text!r}: {rule}")
    if len(set(layers)) < len(layers):
        raise PluginOptionError(NAME, f"layers={text!r} names a layer twice")
    if 0 in layers and "cls" in pooling.split("+"):
        rule = "before the first layer the CLS token is the same for every photo; choose mean or gem"
        raise PluginOptionError(NAME, f"layers={text!r} with pooling={pooling!r}: {rule}")
    return layers


def _layer_numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    try:
        return [-1 if word == "last" else int(word) for word in words]
    except ValueError:
        rule = "must be 'last' or whole numbers separated by commas, or auto"
        raise PluginOptionError(NAME, f"layers={text!r} {rule}") from None
