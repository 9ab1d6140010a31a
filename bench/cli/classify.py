"""`bench classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.cli.options import config_from_options, config_options
from bench.cli.output import print_json, say
from bench.errors import UserError

_OPTIONS = (
    *("backbone", "strategy", "params", "weights", "revision", "template", "prompts"),
    *("normalize", "resolution", "loss", "space", "seed", "noise", "plan"),
    *("batch_size", "dtype", "device"),
)


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--classes", help='The classes, such as "beach,harbor,freeway".')
@click.option("--dataset", help="A dataset whose classes and prompts to use instead.")
@config_options(_OPTIONS)
@click.option("--top", default=5, show_default=True, help="Classes shown of each image.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    classes: str | None,
    dataset: str | None,
    top: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Classify IMAGES of your own, without labels: ranked classes, and by what margin.

    Scores are mean denoising errors: lower is better. The margin is to the runner-up, with its
    standard error; a margin of less than two of those says that the two are hardly told apart.
    """
    if (classes is None) == (dataset is None):
        raise UserError('Say --classes "beach,harbor,freeway", or --dataset for a dataset\'s own.')
    names = tuple(n.strip() for n in classes.split(",") if n.strip()) if classes else None
    if names is not None and (len(names) < 2 or len(set(names)) < len(names)):
        raise UserError(f"--classes {classes!r}: two or more different names are wanted.")
    missing = [path for path in images if not Path(path).is_file()]
    if missing:
        raise UserError(f"There is no image {missing[0]}.")
    config = config_from_options(ctx, None, dataset=dataset or "pictures", **options)
    from bench.running.classify import classify

    answers = classify(config, images, names)
    if as_json:
        print_json(answers)
    else:
        _print(answers, top)
    return 3 if any(answer["error"] for answer in answers) else 0


def _print(answers: list[dict[str, Any]], top: int) -> None:
    from bench.render.console import table

    for answer in answers:
        if answer["error"]:
            say(f"{answer['image']}: {answer['error']}")
            continue
        margin, stderr = answer["margin"], answer["margin_stderr"]
        note = "" if margin is None else f"  ·  margin {margin:.5f}"
        if stderr:
            note += f" ± {stderr:.5f}, confidence {answer['confidence']:.3f}"
        rows = [
            [place, entry["class"], f"{entry['score']:.5f}", entry["draws"]]
            for place, entry in enumerate(answer["ranking"][:top], start=1)
        ]
        table(["", "class", "score", "draws"], rows, title=f"{answer['image']}{note}")
