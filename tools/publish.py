"""Make the runs of the boards in `results/publish.toml` again, and publish small copies of them.

    python tools/publish.py --dataset digits

The same command resumes if it was interrupted. `bench results validate` and `bench results render`
follow.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.cli.progress import Progress
from bench.contracts.parameters import Parameters
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.errors import UserError
from bench.machine.files import read_toml
from bench.recordings.replay import prepare_replay
from bench.reports.leaderboard.adding import publish_run
from bench.running.execute import execute
from bench.running.lifecycle import run
from bench.running.parts.settings import make_config
from bench.running.second_runs import audit_stored
from bench.store.formats.fields import first_problem


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    strategy: str | None = None
    params: Parameters = Field(default_factory=dict)
    audit: int | None = Field(None, ge=1)  # number of images to audit afterwards; None: no audit


class PublishedBoard(BaseModel):
    """The runs to publish of one backbone on one dataset."""

    model_config = ConfigDict(extra="forbid")

    dataset: str
    backbone: str
    draws: int | None = Field(None, ge=1)  # draws to record; None: no recording, so no replays
    record: str | None = None  # strategy to record; None: the exhaustive one
    live: list[_Choice] = []  # runs to make with the model
    replay: list[_Choice] = []  # runs to replay on the recording


def read_table(file: Path) -> list[PublishedBoard]:
    """Read the boards listed in a TOML file; UserError if it is missing or invalid."""
    try:
        boards = TypeAdapter(list[PublishedBoard])
        return boards.validate_python(read_toml(file).get("board", []))
    except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{file} is not a table of boards: {problem}") from None


def publish(
    board: PublishedBoard,
    work: Path,
    published: Path,
    limit: int | None = None,
    data_dir: str | None = None,
) -> Iterator[Path]:
    """Make the runs of a board, and yield the folder of each after it is published (UserError).

    The full runs with their recorded errors are kept in the folder `work`, and the small copies in
    `published`. `limit` is a number of images per run, for a trial. Repeating an interrupted call
    resumes it.
    """
    add = partial(publish_run, published=published, subset=limit is not None, replace=True)

    def audited(folder: Path, count: int | None) -> Path:
        if count is not None:
            audit_stored(folder, count, {"data_dir": data_dir})
        return folder

    def folder_of(strategy: str | None, params: Parameters, save_errors: bool) -> Path:
        settings: dict[str, Any] = {"limit": limit, "data_dir": data_dir, "results": str(work)}
        settings |= {"dataset": board.dataset, "backbone": board.backbone}
        settings |= {"strategy": strategy, "params": dict(params)}
        settings |= {"save_errors": True} if save_errors else {}
        return run(make_config(settings)).folder

    recorded = None
    if board.draws is not None:
        recorded = folder_of(board.record or exhaustive_strategy(), {"draws": board.draws}, True)
        yield add(recorded)
    for choice in board.live:
        yield add(audited(folder_of(choice.strategy, choice.params, False), choice.audit))
    for choice in board.replay:
        if choice.strategy is None or recorded is None:
            raise UserError(f"A replay on {board.dataset} needs a strategy and draws.")
        replay = prepare_replay(recorded, choice.strategy, choice.params, work, limit)
        yield add(audited(execute(replay).folder, choice.audit))


def main(arguments: Sequence[str] | None = None) -> None:
    """Publish the boards that the arguments select."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, default=Path("results/publish.toml"))
    parser.add_argument("--dataset", help="only this dataset's boards")
    parser.add_argument("--into", type=Path, default=Path("results/published"))
    parser.add_argument("--work", type=Path, default=Path("results"), help="folder of whole runs")
    parser.add_argument("--limit", type=int, help="only so many images, as a trial")
    parser.add_argument("--data-dir", help="a local copy of the dataset")
    chosen = parser.parse_args(arguments)
    try:
        boards = [b for b in read_table(chosen.table) if chosen.dataset in (None, b.dataset)]
        if not boards:
            raise UserError(f"{chosen.table} lists no such board.")
        with Progress(load_plugins().manager):
            for board in boards:
                for path in publish(board, chosen.work, chosen.into, chosen.limit, chosen.data_dir):
                    print(f"Published {path}")
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
