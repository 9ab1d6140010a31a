"""Make the published results again, from one table of boards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.boards.adding import publish_run
from bench.contracts.parameters import Parameters
from bench.discovery.loading import exhaustive
from bench.errors import UserError
from bench.machine.files import read_toml
from bench.store.fields import first_problem


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    strategy: str | None = None
    params: Parameters = Field(default_factory=dict)


class PublishedBoard(BaseModel):
    """What is published of one backbone on one dataset."""

    model_config = ConfigDict(extra="forbid")

    dataset: str
    backbone: str
    draws: int | None = Field(None, ge=1)
    """None: nothing is recorded, as for a classifier, and so nothing can be replayed."""
    record: str | None = None
    """A strategy that scores, and records, every prompt on every draw; None: the exhaustive one."""
    live: list[_Choice] = []
    replay: list[_Choice] = []


def read_table(file: Path) -> list[PublishedBoard]:
    """Read the boards of a TOML file; UserError: there is none, or an entry does not fit."""
    try:
        entries = read_toml(file).get("board", [])
        return [PublishedBoard.model_validate(entry) for entry in entries]
    except (OSError, ValueError) as error:  # pydantic's is a ValueError
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{file} is no table of boards: {problem}") from None


def publish(
    board: PublishedBoard,
    work: Path,
    published: Path,
    limit: int | None = None,
    data_dir: str | None = None,
) -> Iterator[Path]:
    """Make the runs of a board and yield their published folders; the same call resumes.

    The runs with their recorded errors are made in the folder `work`, of `limit` images to try it;
    the small copies in `published`. UserError: invalid input, before anything is scored.
    """
    from bench.recordings.replay import prepare_replay
    from bench.running.execute import execute
    from bench.running.run import run
    from bench.running.settings import make_config

    add = partial(publish_run, published=published, subset=limit is not None, replace=True)

    def folder_of(strategy: str | None, params: Parameters, save_errors: bool) -> Path:
        settings: dict[str, Any] = {"limit": limit, "data_dir": data_dir, "results": str(work)}
        settings |= {"dataset": board.dataset, "backbone": board.backbone}
        settings |= {"strategy": strategy, "params": dict(params)}
        settings |= {"save_errors": True} if save_errors else {}
        return run(make_config(settings)).folder

    recorded = None
    if board.draws is not None:
        recorded = folder_of(board.record or exhaustive(), {"draws": board.draws}, True)
        yield add(recorded)
    for choice in board.live:
        yield add(folder_of(choice.strategy, choice.params, False))
    for choice in board.replay:
        if choice.strategy is None or recorded is None:
            raise UserError(f"A replay on {board.dataset} needs a strategy and draws.")
        replay = prepare_replay(recorded, choice.strategy, choice.params, work, limit)
        yield add(execute(replay).folder)
