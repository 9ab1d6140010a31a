"""`bench classify`. Say what pictures of your own show.

Group: Score images, 2.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import config_from_options, config_options
from bench.cli.output import next_steps, print_json, say
from bench.cli.sections import Sectioned
from bench.errors import UserError
from bench.running.settings import SETTINGS

if TYPE_CHECKING:
    from bench.engine.asking import CheckedStrategy
    from bench.running.verbs.classify import Answer, Classified, Place


@click.command(cls=Sectioned)
@click.argument("images", nargs=-1, required=True)
@click.option("--classes", help='The classes, such as "beach,harbor,freeway".')
@click.option("--dataset", help="A dataset whose classes and prompts to use instead.")
@config_options([name for name, setting in SETTINGS.items() if setting.classify])
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
    standard error; the two classes are close where the margin is less than two of those.

    With --dataset, what `bench calibrate` learned from other images of it is used: how probable it
    is that the class is right, and --risk.
    """
    if (classes is None) == (dataset is None):
        raise UserError('Give --classes "beach,harbor,freeway", or --dataset for a dataset\'s own.')
    names = tuple(n.strip() for n in classes.split(",") if n.strip()) if classes else None
    if names is not None and (len(names) < 2 or len(set(names)) < len(names)):
        raise UserError(f"--classes {classes!r}: two or more different names are wanted.")
    missing = [path for path in images if not Path(path).is_file()]
    if missing:
        raise UserError(f"There is no image {missing[0]}.")
    config = config_from_options(ctx, None, dataset=dataset or "pictures", **options)
    from bench.cli.progress import Counter
    from bench.running.verbs.classify import classify

    with Counter(shown=not as_json) as counter:
        found = classify(config, images, names, counter)
    answers = found.answers
    if as_json:
        print_json([answer.model_dump(mode="json", by_alias=True) for answer in answers])
    else:
        _print(answers, top, found.strategy)
        _print_worth(found)
        known = shlex.quote(dataset) if dataset else "./FOLDER"
        of = f" --backbone {shlex.quote(config.backbone)}" if config.backbone else ""
        next_steps(
            ("see how often it is right, on images of known class", f"bench run {known}{of}")
        )
    return 3 if any(answer.error for answer in answers) else 0


def _print(answers: Sequence[Answer], top: int, strategy: CheckedStrategy) -> None:
    from bench.render.repeatability import change_of
    from bench.render.tables import table

    for answer in answers:
        if answer.error:
            say(f"{answer.image}: {answer.error}")
            continue
        shown = answer.ranking[:top]
        columns = ["", "class", "score", "draws"]
        rows: list[list[Any]] = [
            [place, entry.name, None if entry.score is None else f"{entry.score:.5f}", entry.draws]
            for place, entry in enumerate(shown, start=1)
        ]
        if any(entry.given_up for entry in shown):
            columns.append("")
            for row, entry in zip(rows, shown, strict=True):
                row.append(_given_up(entry))
        say(f"{answer.image}: {answer.prediction}{_sureness(answer, change_of(answer, strategy))}")
        table(columns, rows, right=["score"])
    given_up = any(place.given_up for answer in answers for place in answer.ranking[:top])
    if given_up:
        say(
            "A class that was given up early has a score from fewer draws than the winner's, so the"
            " two cannot be compared. Such classes are ranked by when they were given up."
        )
    if strategy.level is not None:
        say(f"Each answer was decided at level {strategy.level:g}.")


def _print_worth(found: Classified) -> None:
    """Say what the answers are worth, as far as other images of the dataset tell."""
    from bench.render.worth import said_risk

    if found.stated is not None:
        say(said_risk(found.stated))
    if found.calibrated is not None:
        manifest, images = found.calibrated
        say(
            f"Probability that the class is right: fitted on {images:,} other images"
            f" ({manifest.dataset.name}/{manifest.dataset.split}, {manifest.run_id}). It holds for"
            " images drawn as these were."
        )


def _sureness(answer: Answer, change: float | None) -> str:
    said = ""
    if answer.margin is not None:
        said += f", margin {answer.margin:.5f}"
        if answer.margin_stderr:
            said += f" ± {answer.margin_stderr:.5f}"
        if change is not None:
            said += f", other random noise would change it with probability {change:.3f}"
    if answer.probability is not None:
        said += f", probability {answer.probability:.3f}"
    return said


def _given_up(entry: Place) -> str:
    if not entry.given_up:
        return ""
    if not entry.draws:
        return "given up before its first draw"
    return f"given up after {entry.draws} draw{'s' if entry.draws > 1 else ''}"
