"""Python interface: the commands as functions, which check the types of their arguments.

`results=None` is the folder in the variable `BENCH_RESULTS`, or `results`, as on the command line.
No other variable of a setting is read, so that none changes a number.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from bench.cli.progress import ProgressChoice, show_progress
from bench.contracts.specs import DatasetSpec
from bench.contracts.typed import checks_types
from bench.errors import UserError
from bench.inputs.class_names import list_classes
from bench.inputs.data import load_split, slugify
from bench.inputs.items import item_column
from bench.inputs.split import Split
from bench.machine.guest import at_work
from bench.machine.libraries import DataFrame, Figure, pd
from bench.machine.offline import offline
from bench.recordings.learn import calibrate_sweep
from bench.reports.comparisons import compare as compare_runs
from bench.reports.result import AnswerList, ComparisonResult, RunResult
from bench.reports.run_view import read_decided_run, read_decided_runs
from bench.running.classify import Picture
from bench.running.classify import classify as classify_images
from bench.running.execute import Finished
from bench.running.lifecycle import run as run_config
from bench.running.parts.data import data_source, find_dataset
from bench.running.parts.settings import make_config
from bench.running.prepare import Preloaded, load_named, read_content, take_object, with_loaded
from bench.running.study.course import run_study
from bench.running.study.grid import declare_grid, lists_in
from bench.store.folder import find_run, list_runs
from bench.store.runs import read_run, with_tags
from bench.store.shipped import default_results

if TYPE_CHECKING:
    import datasets

    from bench.reports.result import StudyResult

    Data: TypeAlias = str | PathLike[str] | datasets.Dataset

Name = str | PathLike[str]


@checks_types
@at_work()
def load_dataset(
    name: Name, split: str | None = None, data_dir: Name | None = None
) -> "datasets.Dataset":
    """Return a dataset's split with the columns image, label and sample_id.

    Images are decoded when they are read, as runs see them. A dataset of items has the columns of
    docs/items.md. The name may be that of a folder (a value with a slash); without `split`, it is
    the one that is evaluated; `data_dir` is a local copy.
    """
    from bench.inputs.decoded import decode_images

    config = make_config({"dataset": name, "split": split, "data_dir": data_dir})
    data = find_dataset(config)
    return decode_images(load_split(data, config.split).rows, data.spec.border)


@checks_types
@at_work()
def prompts(name: Name, template: str | list[str] | None = None) -> list[str]:
    """Return the prompts of a dataset (a name or a folder) in class order.

    `template` is a text with `{class}`, or a list of them, instead of the dataset's own.
    """
    config = make_config({"dataset": name, "template": template})
    return list(read_content(config).prompts.texts)


@checks_types
@at_work()
def load_backbone(
    name: Any,
    weights: Name | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **parameters: Any,
) -> Any:
    """Return a backbone, a `bench.contracts.backbone.Denoiser` or `Classifier`.

    Args:
        name: a registered name, a pipeline folder, or a pipeline of diffusers in memory, which is
            not changed.
        weights: a Hub id or a folder instead of the backbone's own.
        device: None: the best there is; of a pipeline, where it is.
        dtype: None: the default of a run on this device; of a pipeline, its own.
        parameters: of a pipeline: `resolution`, `normalize`, and `call`, keywords that its
            `__call__` is given.

    Raises:
        bench.errors.UserError: there is no such backbone, or it cannot be driven.
    """
    if isinstance(name, str | PathLike):
        if parameters:
            raise UserError(
                f"{next(iter(parameters))}= is for a pipeline in memory, not for a name."
            )
        chosen = {"backbone": name, "weights": weights, "device": device, "dtype": dtype}
        return load_named(make_config({"dataset": "-", **chosen}))
    if (weights, device, dtype) != (None, None, None):
        raise UserError("weights, device and dtype must be None for a pipeline in memory.")
    return take_object(name, **parameters)


@overload
def run(dataset: list[str], backbone: Any = None, **settings: Any) -> "StudyResult": ...
@overload
def run(dataset: "Data", backbone: list[str], **settings: Any) -> "StudyResult": ...
@overload
def run(
    dataset: "Data",
    backbone: Any = None,
    strategy: str | None = None,
    params: Mapping[str, Any] | None = None,
    progress: ProgressChoice = None,
    **settings: Any,
) -> RunResult: ...
@checks_types
@at_work()
def run(
    dataset: Any,
    backbone: Any = None,
    strategy: Any = None,
    params: Mapping[str, Any] | None = None,
    progress: ProgressChoice = None,
    **settings: Any,
) -> "RunResult | StudyResult":
    """Make or resume a run, and return the object behind `bench run --json`.

    Lists of datasets, backbones or strategies, by their names, are a study of all combinations.

    Args:
        dataset: a registered name, a folder, or a `datasets.Dataset` with the columns image and
            label, and perhaps sample_id; or of items, with the columns of docs/items.md.
        backbone: a name, a folder, what `load_backbone` returned, or a pipeline of diffusers in
            memory. None: the dataset's.
        strategy: None: the backbone's.
        params: the strategy's parameters.
        progress: True: shown; a function: called with the images decided, their total and the
            accuracy so far after each image. None: shown in a notebook, not elsewhere.
        settings: any other field of `bench.running.parts.settings.RunConfig`.

    Returns:
        A mapping, `run["metrics"]["accuracy"]`, whose items are attributes too; its images as the
        table `run.samples`; its figures. With `until="…"`, what the images answered is in
        `run["answer"]`. Lists give a `StudyResult`.

    Raises:
        bench.errors.UserError: invalid input or configuration; nothing was scored.
    """
    settings = {**settings, "results": _results(settings.get("results"))}
    names = {"dataset": dataset, "backbone": backbone, "strategy": strategy}
    if any(isinstance(value, list) for value in names.values()):
        chosen = {**names, "params": dict(params or {}), **settings}
        declared = declare_grid(chosen, lists_in(chosen))
        results = declared.cells[0].config.results
        with show_progress(progress):
            run_study(declared, Path(results))
        return load_study(declared.name, results)
    spec, rows, loaded = None, None, None
    if not isinstance(dataset, str | PathLike):
        spec, rows = _in_memory(dataset), dataset
        dataset = spec.name
    if backbone is not None and not isinstance(backbone, str | PathLike):
        loaded, settings = with_loaded(backbone, settings)
        backbone = settings.pop("backbone")
    names |= {"dataset": dataset, "backbone": backbone}
    config = make_config({**names, "params": dict(params or {}), **settings})
    with show_progress(progress):
        finished = run_config(config, Preloaded(spec, rows, loaded), calibrate_sweep)
    if spec is None:
        return RunResult(finished)
    data = data_source(config, spec)

    def split() -> Split:
        with offline(config.offline):
            return load_split(data, config.split, rows)

    return RunResult(finished, split)


@checks_types
@offline()
def load_run(run: Name, results: Name | None = None) -> RunResult:
    """Return a stored run, by its id or folder; of one that is not complete, what is decided.

    Runs anywhere below `results` come first. If none matches, it may be one that came with the
    package: then its `published` is true. `bench.errors.UserError`: there is no such run, or
    nothing of it is decided yet.
    """
    view = read_decided_run(read_run(_folder(run, results)))
    return RunResult(Finished(view.manifest, view.summary, view.path, answer=view.stop))


@checks_types
@offline()
def load_study(study: Name, results: Name | None = None) -> "StudyResult":
    """Return a study that was started, with what is stored of it by now.

    `study` is the file that declares it, its name, or its folder. `bench.errors.UserError`: there
    is no such study, or it was not started yet.
    """
    from bench.reports.result import StudyResult
    from bench.reports.study.report import study_report
    from bench.running.study.file import find_state

    report = study_report(find_state(str(study), _results(results)))
    return StudyResult.model_construct(report.model_fields_set, **dict(report))


@checks_types
@offline()
def tradeoff_figure(
    runs: Sequence[RunResult | Name] | None = None,
    results: Name | None = None,
    tags: Sequence[str] = (),
    cost: Literal["evaluations", "flop", "seconds"] = "evaluations",
) -> list[Figure]:
    """Return accuracy against cost with the Pareto front, one figure per dataset.

    `cost` is what costs are counted in: evaluations of the model's own network, operations, or
    seconds on the run's machine; the axis is logarithmic.

    `runs` are ids, folders, or runs themselves; None: all that are stored, with `tags` those that
    have each of them, and a warning names those without a decided image. `bench.errors.UserError`:
    there is no such run, or nothing of one that is named is decided.
    """
    from bench.reports.figures.cost import board_panel, draw_cost
    from bench.reports.leaderboard.board import make_boards
    from bench.reports.leaderboard.ranking import rank_boards
    from bench.reports.leaderboard.rows import board_row

    if runs is None:
        chosen = list(read_decided_runs(with_tags(list_runs(_results(results)), tags)))
    else:
        chosen = [read_decided_run(read_run(_folder(run, results))) for run in runs]
    boards = make_boards(rank_boards(map(board_row, chosen)), currency=cost)
    panels = map(board_panel, boards)
    return [draw_cost([panel]).figure() for panel in panels if panel is not None]


@checks_types
@at_work()
def classify(
    images: Picture | Sequence[Picture],
    classes: str | Sequence[str] | None = None,
    dataset: Name | None = None,
    **settings: Any,
) -> AnswerList:
    """Classify images of your own, as `bench classify` does.

    Args:
        images: paths or PIL images.
        classes: class names, for the template, in a list or as the text "cat,dog"; or
        dataset: a dataset whose classes and prompts to use.
        settings: any other field of `bench.running.parts.settings.RunConfig`; `backbone` may be
            all that `bench.run` takes.

    Returns:
        A list with, per image, its prediction, the margin with its standard error, the ranking and,
        where they are known, the stability and the probability that the prediction is right.

    Raises:
        bench.errors.UserError: invalid input or configuration; nothing was scored.
    """
    settings = {**settings, "results": _results(settings.get("results"))}
    if (classes is None) == (dataset is None):
        raise UserError("Give classes=[…], or dataset=… for a dataset's own.")
    several = [images] if isinstance(images, str) or not isinstance(images, Sequence) else images
    names, loaded = None if classes is None else list_classes(classes), None
    if not isinstance(settings.get("backbone"), str | PathLike | None):
        loaded, settings = with_loaded(settings.pop("backbone"), settings)
    config = make_config({"dataset": dataset or "pictures", **settings})
    return AnswerList(classify_images(config, several, names, loaded=loaded).answers)


@checks_types
@offline()
def compare(
    one: RunResult | Name,
    other: RunResult | Name,
    results: Name | None = None,
    metric: str = "accuracy",
) -> ComparisonResult:
    """Compare two runs on the images that both have, as `bench compare` does.

    `one`, the baseline, and `other` are runs, their ids or their folders; differences are those of
    the other run minus the baseline's. `metric` is tested: any of `bench list metrics` whose needs
    both runs meet. `bench.errors.UserError`: there is no such run or metric, or the two share no
    image.
    """
    compared = compare_runs(_folder(one, results), _folder(other, results), metric)
    return ComparisonResult.model_construct(compared.model_fields_set, **dict(compared))


@checks_types
@offline()
def leaderboard(
    results: Name | None = None,
    dataset: str | None = None,
    tags: Sequence[str] = (),
) -> DataFrame:
    """Return the stored runs of each dataset, best first, as `bench leaderboard` ranks them.

    With `tags`, only runs that have each of them.
    """
    from bench.reports.leaderboard.ranking import leaderboard as rank_runs

    return pd.DataFrame([row.plain() for row in rank_runs(_results(results), dataset, tags=tags)])


@checks_types
@offline()
def metrics(results: Name | None = None, tags: Sequence[str] = ()) -> DataFrame:
    """Return a row per stored run and metric, as `bench export --all --format csv` writes them.

    Values and the ends of their 95 % intervals are not rounded. With `tags`, only runs that have
    each of them.
    """
    from bench.reports.flat import flat_rows

    return pd.DataFrame(list(flat_rows(_results(results), tags)))


def _results(results: Name | None) -> Path:
    return Path(default_results() if results is None else results)


def _folder(run: RunResult | Name, results: Name | None) -> Path:
    return run.folder if isinstance(run, RunResult) else find_run(str(run), str(_results(results)))


def _in_memory(rows: Any) -> DatasetSpec:
    import datasets

    if not isinstance(rows, datasets.Dataset):
        raise UserError(
            f"dataset={type(rows).__name__}(…): expected a name, a folder, or a datasets.Dataset"
            " with the columns image and label."
        )
    name = slugify(rows.info.dataset_name or "data")
    return DatasetSpec(
        name=name if name.isascii() else "data",
        target="bench.api:run",
        items=item_column(rows.column_names) is not None,
    )
