"""Views of an image: symmetries, crops, samples of the latent."""

from collections.abc import Callable

from bench import hookimpl
from bench.contracts.specs import Parameter

_HERE = "bench_plugins.views.pictures"


@hookimpl
def register_views(register: Callable[..., None]) -> None:
    """Register the views."""
    register("flip", target=f"{_HERE}:Flip", summary="the image and its mirror image")
    register(
        "turns8",
        target=f"{_HERE}:Turns8",
        summary="the eight symmetries of a square: four turns, each mirrored or not",
    )
    register(
        "crop",
        target="bench_plugins.views.pictures:Crops",
        summary="squares at seeded places, 7/8 as long as the image's shorter side",
        parameters={"count": Parameter(5, "how many")},
    )
    register(
        "posterior",
        target="bench_plugins.views.pictures:Posterior",
        summary="samples of the autoencoder's posterior, for backbones that offer it",
        parameters={"count": Parameter(8, "how many")},
    )
