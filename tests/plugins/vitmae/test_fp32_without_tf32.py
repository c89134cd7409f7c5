"""fp32 is fp32: nothing is rounded to TF32 on the way, even where the process lets torch do that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from vitmae_search.vitmae.inference import inference_context


@pytest.fixture(autouse=True)
def process_that_lets_it() -> Iterator[None]:
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = convolutions


def test_the_flags_are_set_and_set_back() -> None:
    with inference_context(torch.device("cuda"), "fp32"):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32


def test_products_convolutions_and_attention_are_exact_to_fp32(device: str) -> None:
    """Inputs rounded to the 10 bits of TF32 would make errors of 15 times the bound and more."""
    generator = torch.Generator().manual_seed(0)
    images, kernels = (torch.randn(shape, generator=generator) for shape in ((4, 3, 64, 64), (96, 3, 16, 16)))
    tokens = torch.randn(3, 2, 4, 33, 64, generator=generator)
    cases = (
        (functional.linear, (images.flatten(0, 2), images[0, 0])),
        (lambda image, kernel: functional.conv2d(image, kernel, stride=16), (images, kernels)),
        (functional.scaled_dot_product_attention, tuple(tokens)),
    )
    for function, values in cases:
        expected = function(*(value.double() for value in values))
        with inference_context(torch.device(device), "fp32"):
            found = function(*(value.to(device) for value in values)).cpu()
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
