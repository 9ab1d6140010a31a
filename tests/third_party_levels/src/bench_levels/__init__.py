"""A third party's denoisers: a rectified flow in pixels, and a model of class labels."""

from bench import hookimpl


@hookimpl
def register_backbones(register):
    register("pixel-flow", target="bench_levels.flow:PixelFlow", summary="a flow in pixels")
    register("labels", target="bench_levels.labels:Labels", summary="conditioned on class labels")
