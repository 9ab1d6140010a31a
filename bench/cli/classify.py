"""`bench classify`. Classify your own images.

Group: Score images, 2.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from bench.cli.command import command, end_with_json
from bench.cli.output import next_steps, say
from bench.cli.settings import Sectioned, config_from_options, config_options
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError
from bench.inputs.class_names import list_classes
from bench.reports.sentences import level_sentence, risk_sentence
from bench.reports.terminal.tables import print_rows
from bench.running.classify import Answer, RankedClass, classify
from bench.running.command import same_options
from bench.running.parts.settings import SETTINGS, about


@command(cls=Sectioned)
@config_options([n for n in SETTINGS if SETTINGS[n].in_classify and n not in about("data")])
def classify_command(
    images: tuple[str, ...],
    *,
    classes: Annotated[str | None, 'The classes, such as "beach,harbor,freeway".'],
    dataset: Annotated[
        str | None, "Use the classes and prompts of this dataset instead of --classes."
    ],
    top: Annotated[int, "Number of classes shown per image."] = 5,
    **options: Any,
) -> None:
    """Classify IMAGES of your own, which need no labels: print ranked classes and the margin.

    Scores are mean denoising errors: lower is better. The margin is the distance to the runner-up.
    If it is less than twice its standard error, the two classes are close.

    With --dataset, a calibration by `bench learn` on other images of it gives the probability
    that the class is right, and --risk can be used.

    The exit code is 3 if some images failed.
    """
    if (classes is None) == (dataset is None):
        raise UserError('Give --classes "beach,harbor,freeway", or --dataset for a dataset\'s own.')
    names = None if classes is None else list_classes(classes)
    if missing := [path for path in images if not Path(path).is_file()]:
        inside = f" It is a folder; its files: {missing[0]}/*" if Path(missing[0]).is_dir() else ""
        raise UserError(f"There is no image {missing[0]}.{inside}")
    config = config_from_options(dataset=dataset or "pictures", **options)
    classified = classify(config, images, names)
    answers = classified.answers
    plain = [answer.model_dump(mode="json", by_alias=True) for answer in answers]
    end_with_json(plain, 3 if any(answer.error for answer in answers) else 0)
    _print_answers(answers, top, classified.strategy)
    if classified.stated is not None:
        say(risk_sentence(classified.stated))
    if classified.calibrated is not None:
        manifest, fitted = classified.calibrated
        say(
            f"Probability that the class is right: fitted on {fitted:,} other images"
            f" ({manifest.dataset.name}/{manifest.dataset.split}, {manifest.run_id}). It holds for"
            " images drawn as these were."
        )
    run = same_options(config, dataset=dataset or "./FOLDER")
    next_steps(("see how often it is right, on images of known class", run))


def _print_answers(answers: Sequence[Answer], top: int, strategy: CheckedStrategy) -> None:
    """Print the best classes of each image, and what scores and margins mean."""
    for answer in answers:
        if answer.error:
            say(f"{answer.image}: {answer.error}")
            continue
        rows = []
        for place, entry in enumerate(answer.ranking[:top], start=1):
            score = None if entry.score is None else f"{entry.score:.5f}"
            rows.append([place, entry.name, score, entry.draws, _given_up_text(entry)])
        columns = ["", "class", "score", "draws", ""]
        if not any(entry.given_up for entry in answer.ranking[:top]):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        say(f"{answer.image}: {answer.prediction}{_margin_text(answer, strategy)}")
        print_rows(columns, rows, right=["score"])
    if any(entry.given_up for answer in answers for entry in answer.ranking[:top]):
        say(
            "A class that was given up early has a score from fewer draws than the winner's, so the"
            " two cannot be compared. Such classes are ranked by when they were given up."
        )
    if words := level_sentence(strategy):
        say(words)


def _margin_text(answer: Answer, strategy: CheckedStrategy) -> str:
    text = ""
    if answer.margin is not None:
        text += f", margin {answer.margin:.5f}"
        if answer.margin_stderr:
            text += f" ± {answer.margin_stderr:.5f}"
        if (change := answer.change_probability(strategy)) is not None:
            text += f", other random noise would change it with probability {change:.3f}"
    if answer.probability is not None:
        text += f", probability {answer.probability:.3f}"
    return text


def _given_up_text(entry: RankedClass) -> str:
    if not entry.given_up:
        return ""
    if not entry.draws:
        return "given up before its first draw"
    return f"given up after {entry.draws} draw{'s' if entry.draws > 1 else ''}"
