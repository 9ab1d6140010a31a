"""`bench results`. Submit, check, merge and audit results.

Group: Many runs, repeated and published, 3.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import click

from bench.cli.command import Command, Results, end_with_json
from bench.cli.output import (
    draw_pictures,
    named_run,
    next_steps,
    results_argument,
    run_name,
    say,
    steps_after_run,
)
from bench.cli.progress import Progress
from bench.cli.settings import config_options
from bench.discovery.loading import load_plugins
from bench.errors import BenchError, UserError, refusing
from bench.machine.files import write_atomically, writing
from bench.reports.facts import percent_text
from bench.reports.figures.cost import board_panel, draw_cost
from bench.reports.leaderboard.adding import add_reported, publish_run
from bench.reports.leaderboard.board import board_tables, make_boards
from bench.reports.leaderboard.published import TRUST, mark, recompute, validate
from bench.reports.leaderboard.ranking import leaderboard, main_rows
from bench.reports.leaderboard.rows import LeaderboardRow
from bench.reports.sentences import audit_sentence
from bench.reports.text import to_markdown
from bench.running.second_runs import audit_stored
from bench.running.shards import merge
from bench.stats.metrics.summarise import INCOMPLETE
from bench.store.columns import add_columns, read_columns_csv
from bench.store.folder import list_runs, read_manifest
from bench.store.shipped import SHIPPED_ARCHIVE, is_packed, pack

PUBLISHED = "results/published"
Published = Annotated[str, "The folder of published results.", "--into", {"default": PUBLISHED}]


@click.group()
def results_command() -> None:
    """Submit, check, merge, audit and label results."""


_command = partial(results_command.command, cls=Command)


def _published_folder(published: str) -> Path:
    """Return the folder of published results; UserError if it does not exist."""
    folder = Path(published)
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {published}. Work in a clone of the repository, or name the"
            " folder with --into."
        )
    return folder


@_command("add", local=True)
def add_results(
    source: str,
    *,
    published: Published,
    subset: Annotated[bool, "Accept a run on a part of the split; it is marked as a subset."],
    private: Annotated[bool, "Accept data that others cannot get; the run is marked as private."],
    replace: Annotated[bool, "Replace the published run of the same id."],
    results: Results,
) -> None:
    """Add SOURCE: a complete run (id or folder), or a JSON file of reported results.

    It is checked first. A run must be on the whole split of a registered dataset; a replay is
    marked as one. Manifest, summary and one line per image are copied, and no image.
    """
    if Path(source).is_file():
        new = add_reported(Path(source), Path(published))
        end_with_json({"added": [result.model_dump(mode="json") for result in new]})
        say(f"Added {len(new)} reported result{'s' * (len(new) != 1)} to {published}.")
    else:
        run = named_run(source, results)
        added = publish_run(run, Path(published), subset, private, replace)
        end_with_json({"added": str(added)})
        say(f"Added {added}")
        say(TRUST)
    next_steps(("check it", f"bench results validate{_into_argument(published)}"))


def _into_argument(published: str) -> str:
    return "" if published == PUBLISHED else f" --into {shlex.quote(published)}"


@_command("columns", local=True)
def columns(
    run: str,
    file: str | None,
    *,
    names: Annotated[
        tuple[str, ...],
        "A column of the run's dataset; repeat for more.",
        "--of-dataset",
        {"metavar": "COLUMN"},
    ],
    results: Results,
) -> None:
    """Add further labels to RUN, from FILE, a CSV file, or from columns of its dataset.

    FILE has a column sample_id and one column per label. Metrics that need further labels read
    them, and `bench view` shows the images with one value. They change neither the run nor its id.
    """
    if (file is None) == (not names):
        raise UserError("Give a CSV file, or --of-dataset COLUMN.")
    path = named_run(run, results)
    manifest = read_manifest(path)
    if file is not None:
        added = read_columns_csv(Path(file))
    else:
        from bench.reports.dataset_columns import dataset_columns

        added = dataset_columns(manifest, names)
    labels_of_run = add_columns(path, manifest, added)
    end_with_json({name: len(labels) for name, labels in labels_of_run.items()})
    for name, labels in added.items():
        values = set(labels.values()) - {""}
        say(f"{name}: {len(labels):,} images, {len(values):,} values")
    first = next(iter(added))
    show = f"bench show {run_name(path, results)} --metric accuracy --by {shlex.quote(first)}"
    next_steps(("the accuracy by value", show))


@_command("merge", local=True)
def merge_results(
    runs: tuple[str, ...] = (),
    *,
    incomplete: Annotated[
        bool, "Merge even if shards are missing; the run is then incomplete.", "--partial"
    ],
    results: Results,
) -> None:
    """Merge the shards of a run: RUNS is the run's id, or the folders of its shards.

    The run is written to --results, under its own id. The shards are not changed, and merging again
    changes nothing. The exit code is 3 if some images failed.
    """
    finished = merge(runs, results, incomplete)
    summary = finished.summary
    end_with_json(finished.plain(), 3 if summary.failed_samples else 0)
    if summary.status != INCOMPLETE:
        draw_pictures(finished.folder)
    accuracy = percent_text(summary.metrics.accuracy, summary.metrics.accuracy_ci95)
    say(
        f"{summary.run_id}: {summary.dataset.n_samples:,} images, {summary.status}, accuracy, %:"
        f" {accuracy}, in {finished.folder}"
    )
    if summary.status == INCOMPLETE:
        merge_again = f"bench results merge {summary.run_id}{results_argument(results)}"
        next_steps(("when the other shards are done", merge_again))
    else:
        next_steps(*steps_after_run(run_name(finished.folder, results)))


@_command("audit")
@config_options(["data_dir", "device"])
def audit_results(
    run: str,
    count: Annotated[int, {"metavar": "N", "type": click.IntRange(min=1)}],
    *,
    results: Results,
    **options: Any,
) -> None:
    """Audit RUN: decide images by the full sweep, until N are audited, as `bench run --audit N`.

    The full sweep evaluates every prompt on every draw. The images are a random sample of those
    that took fewer evaluations. More can be added at any time, because the interval is valid at
    every number of images. A replay is audited with the model.
    """
    path = named_run(run, results)
    with Progress(load_plugins().manager):
        audit = audit_stored(path, count, options)
    end_with_json({"run_id": read_manifest(path).run_id, "audit": audit and audit.plain()})
    if audit is not None:
        say(audit_sentence(audit))
        next_steps(("see the run", f"bench show {run_name(path, results)}"))


@_command("validate", local=True)
def validate_results(
    *,
    published: Published,
    again: Annotated[
        bool, "First compute summaries again whose promises an erratum names.", "--recompute"
    ],
    marked: Annotated[bool, "First write which errata touch which runs.", "--mark"],
) -> None:
    """Check every published result: schema, names, metrics against records, files, errata.

    A run that an erratum touches fails unless it is marked, or its summary was computed again.
    """
    folder = _published_folder(published)
    written = recompute(folder) if again else []
    written += [mark(folder)] if marked else []
    for path in written:
        say(f"Wrote {path}", err=True)
    if problems := validate(folder):
        raise BenchError("\n".join(problems))
    valid = len(list_runs(folder))
    end_with_json({"valid": valid})
    say(f"{valid} published runs are valid.")
    say(TRUST)
    next_steps(
        ("show them on the page of results", f"bench results render{_into_argument(published)}")
    )


@_command("render", local=True)
def render_results(
    *,
    published: Published,
    readme: Annotated[str, "The file that shows the leaderboard."] = "results/README.md",
    check: Annotated[bool, "Change nothing; fail if a file is out of date."],
) -> None:
    """Write the leaderboard of the published results into a page, and draw its picture.

    In a clone of the repository, also the archive of the runs that comes with the package.
    """
    folder = _published_folder(published)
    shipped = SHIPPED_ARCHIVE if SHIPPED_ARCHIVE.parent.is_dir() else None
    if check and (outdated := find_stale(folder, Path(readme), shipped)):
        raise BenchError("\n".join([*outdated, "`bench results render` updates them."]))
    written = [] if check else render_page(folder, Path(readme), shipped)
    end_with_json({"written": [str(path) for path in written]})
    for path in written:
        say(f"Wrote {path}")


# Lines around the table in a README.
BEGIN, END = "<!-- leaderboard: bench results render -->", "<!-- end of leaderboard -->"
PICTURE = "leaderboard.png"


class Rendered(NamedTuple):
    """A file that is made from the published results."""

    file: Path
    current: bool  # whether the stored file is made from the current results
    if_stale: str  # the message if it is not
    content: Callable[[], str | bytes]


def rendered(published: Path, readme: Path, archive: Path | None = None) -> Iterator[Rendered]:
    """Yield the files that are made from the published results (UserError).

    In `readme`, the text between the lines `BEGIN` and `END` is replaced. `archive` is the file of
    the published runs that comes with the package, if any.
    """
    rows = main_rows(leaderboard(published), aside=True)
    page, picture = _with_table(readme, rows), published / PICTURE
    message = f"{readme} does not show the results in {published}"
    yield Rendered(readme, _read(readme) == page, message, lambda: page)
    if archive:
        message = f"{archive} does not have the results in {published}"
        yield Rendered(archive, is_packed(published, archive), message, lambda: pack(published))
    if rows:
        message = f"{picture} was not drawn from these results"
        current = _read_digest(picture) == _compute_digest(rows)
        yield Rendered(picture, current, message, lambda: draw(rows))


def render_page(published: Path, readme: Path, archive: Path | None = None) -> list[Path]:
    """Write the files that are `rendered`, and return them."""
    contents = {part.file: part.content() for part in rendered(published, readme, archive)}
    with writing("The leaderboard"):
        for file, content in contents.items():
            write_atomically(file, content)
    return list(contents)


def find_stale(published: Path, readme: Path, archive: Path | None = None) -> list[str]:
    """Return the files that `render_page` would change, as one sentence each."""
    return [part.if_stale for part in rendered(published, readme, archive) if not part.current]


def _read(file: Path) -> str:
    advice = ". This command works in a clone of the repository."
    with refusing(f"{file} cannot be read: ", OSError, UnicodeDecodeError, after=advice):
        return file.read_text("utf-8")


def _with_table(readme: Path, rows: Sequence[LeaderboardRow]) -> str:
    """Return the text of `readme` with the current table."""
    before, begin, rest = _read(readme).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} needs the lines {BEGIN!r} and {END!r} around the table.")
    return f"{before}{BEGIN}\n{to_markdown(board_tables(rows))}{END}{after}"


def _compute_digest(rows: Sequence[LeaderboardRow]) -> str:
    tables = board_tables(rows)
    shown = [[table.title, table.above, table.head, table.texts, table.sources] for table in tables]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _read_digest(picture: Path) -> str | None:
    """Return the digest of the rows from which a picture was drawn; None if it states none."""
    from PIL import Image

    if not picture.is_file():
        return None
    with Image.open(picture) as image:
        return image.info.get("Source")


def draw(rows: Sequence[LeaderboardRow]) -> bytes:
    """Return a plot of accuracy with its interval against cost, a panel per board, as PNG.

    The digest of the rows is in the picture's metadata, so that `find_stale` can compare it.
    """
    panels = (board_panel(board, named=True) for board in make_boards(rows))
    drawing = draw_cost([panel for panel in panels if panel is not None])
    return drawing.png(Source=_compute_digest(rows))
