"""The conformance kit: checks whether a plugin keeps the contract. Works with pytest, and without it.

All at once::

    check_embedder(Path("my_plugin.py"), options={"size": 64})       # a drop-in file or folder
    check_embedder("my_package.embedder:plugin")                      # an installed module

or each check as a test of its own::

    @pytest.fixture(scope="module")
    def subject():
        with PluginUnderTest(Path("my_plugin.py")) as subject:
            yield subject

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_plugin(check, subject):
        check(subject)

For a plugin that also classifies: `check_classifier(Path("my_plugin.py"), "a model of mine")`.
"""

from vitmae_search.embedding.testing.checks import CHECKS, check_embedder
from vitmae_search.embedding.testing.classifier import check_classifier
from vitmae_search.embedding.testing.images import odd_images, sample_images
from vitmae_search.embedding.testing.plugin_under_test import ConformanceError, PluginUnderTest

__all__ = [
    "CHECKS",
    "ConformanceError",
    "PluginUnderTest",
    "check_classifier",
    "check_embedder",
    "odd_images",
    "sample_images",
]
