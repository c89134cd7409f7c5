"""Fit the maps that guess a picture's turned vectors (`Projection.turns`), and write them into a projection.

    python -m benchmarks.fit_turns FOLDER PROJECTION [--model NAME] [--photos 6000] [--seed 0]

Photos of the folder are embedded as they are and turned by 90, 180 and 270°. Nine tenths are fitted to; of
the others it prints how near the guesses come. The vectors that the projection gives stay the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.embedding import GuardedEmbedder, PluginHost, Projection, open_embedder
from vitmae_search.photos import decode, decode_target, read_photo, scan, views
from vitmae_search.training.adaptation import fit_turns

ANGLES = (0, 90, 180, 270)
BATCH = 32


def turned_vectors(
    embedder: GuardedEmbedder, projection: Projection, paths: list[str]
) -> dict[int, NDArray[np.float32]]:
    """By degrees to the left, the vectors (N, D) of photos turned so.

    Args:
        embedder: Makes the features.
        projection: Takes them.
        paths: N files.
    """
    rows = []
    for start in range(0, len(paths), BATCH):
        prepared = []
        for path in paths[start : start + BATCH]:
            target = decode_target("scaled", embedder.input_size)
            image = decode(read_photo(path), path=path, shrink_to=target).image
            prepared += [embedder.prepare(views.quarter_turn(image, turns=angle // 90)) for angle in ANGLES]
        rows.append(projection(embedder.embed(np.stack(prepared))))
    vectors = np.concatenate(rows).reshape(len(paths), len(ANGLES), -1)
    return {angle: vectors[:, i] for i, angle in enumerate(ANGLES)}


def main() -> None:
    """Embed, fit, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("projection", help="the file; it is written anew")
    parser.add_argument("--model", default="vitmae-tiny-patch8-64")
    parser.add_argument("--photos", type=int, default=6000, help="how many are drawn, at most")
    parser.add_argument("--seed", type=int, default=0, help="what is drawn")
    options = parser.parse_args()
    projection = Projection.read(options.projection)
    paths = [stamp.path for stamp in scan(options.folder, on_problem=print)]
    order = np.random.default_rng(options.seed).permutation(len(paths))[: options.photos]
    embedder = open_embedder(PluginHost().get("vitmae"), {"model": options.model})
    vectors = turned_vectors(embedder, projection, [paths[row] for row in order])
    held = len(order) // 10
    fitted = replace(projection, turns=fit_turns({angle: own[held:] for angle, own in vectors.items()}))
    fitted.save(options.projection)
    print(describe_machine("torch"))
    guessed = fitted.guess_turned(vectors[0][:held])
    assert guessed is not None
    rows = [
        (f"{angle}°", *(f"{np.median(np.sum(of * vectors[angle][:held], axis=1)):.3f}" for of in (near, own)))
        for angle, own in zip(ANGLES[1:], guessed, strict=True)
        for near in [vectors[0][:held]]
    ]
    print(markdown_table(("turned by", "cosine with the picture's vector, median", "with the guess"), rows))


if __name__ == "__main__":
    main()
