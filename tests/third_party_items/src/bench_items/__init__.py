"""A third party's items, a likelihood and views, written from docs/items.md."""

from bench import hookimpl


@hookimpl
def register_datasets(register):
    register(
        "halves",
        target="bench_items.halves:Halves",
        summary="which colour is on the left",
        items=True,
        splits={"test": 12},
        split="test",
        backbone="pixel-colours",
    )


@hookimpl
def register_backbones(register):
    register(
        "pixel-colours",
        target="bench_items.pixels:PixelColours",
        summary="the likelihood of a few pixels' colours",
        scorer="likelihood",
        trained_on=None,
        draws=20,
    )


@hookimpl
def register_views(register):
    register(
        "corners",
        target="bench_items.corners:Corners",
        summary="the four corners",
        parameters={"share": 0.8},
    )
