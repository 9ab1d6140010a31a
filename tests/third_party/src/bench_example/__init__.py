"""A third party's plugin: a dataset, a backbone and a strategy."""

from bench import hookimpl


@hookimpl
def register_datasets(register):
    register(
        "shades",
        target="bench_example.shades:Shades",
        summary="plain grey squares, dark and light",
        classes=("dark", "light"),
        template="a {class} square",
        splits={"test": 40},
        split="test",
        backbone="brightness",
    )


@hookimpl
def register_backbones(register):
    register(
        "brightness",
        target="bench_example.brightness:Brightness",
        summary="scores by mean brightness",
        scorer="classifier",
    )


@hookimpl
def register_strategies(register):
    register(
        "first-draws",
        target="bench_example.first_draws:FirstDraws",
        summary="every prompt on the first draws",
        parameters={"draws": 500, "first": 2},
    )
