"""Entries of a study's file, each read and checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from bench.errors import UserError, did_you_mean
from bench.inputs.data import slug
from bench.stats.crossed import LEAST_SEEDS, Over
from bench.stats.sequential import Stop

PLURALS = {f"{name}s": name for name in ("dataset", "split", "backbone", "template", "seed")}
PLURALS["strategies"] = "strategy"
PILOT_IMAGES = 24  # images of every run that are scored first, by default
MAX_TABLES = 1_000  # of one kind
Table = Mapping[str, object]


def tables_of(study: Table, key: str) -> list[Table]:
    """Return the tables `[[key]]` of a study's file."""
    tables = study.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{key} is a list of tables: write it as [[{key}]].")
    if len(tables) > MAX_TABLES:
        raise UserError(
            f"it has {len(tables):,} tables [[{key}]]; at most {MAX_TABLES:,} are read."
        )
    return tables


def in_text(value: object) -> str:
    """Return a value as tables show it."""
    if isinstance(value, list):
        return " · ".join(map(in_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def exclusion(table: Table, labels: Mapping[str, Mapping[str, None]]) -> dict[str, frozenset[str]]:
    """Return the labels per axis that a table of `[[exclude]]` leaves out."""
    excluded = {}
    for key, value in table.items():
        name = PLURALS.get(key, key)
        if name not in labels:
            raise UserError(f"[[exclude]]: there is no axis {key!r}.{did_you_mean(key, labels)}")
        excluded[name] = frozenset(map(in_text, value if isinstance(value, list) else [value]))
        for label in sorted(excluded[name] - set(labels[name])):
            close = did_you_mean(label, labels[name])
            raise UserError(f"[[exclude]]: {name} has no value {label!r}.{close}")
    if not excluded:
        raise UserError("[[exclude]]: an empty table would exclude everything.")
    return excluded


def is_excluded(axes: Mapping[str, str], excluded: Sequence[Mapping[str, frozenset[str]]]) -> bool:
    """Return whether a cell is left out: one of the tables fits it on all axes that it names."""
    return any(all(axes.get(n) in labels for n, labels in table.items()) for table in excluded)


def study_name(study: Table, path: Path) -> str:
    """Return the study's name: by default the file's."""
    name = study.get("name", slug(str(path)))
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name):
        raise UserError(
            f"name = {name!r}: use lower case letters, digits, '.', '_' and '-'; the study's"
            " folder is called so."
        )
    return name


def pilot_of(study: Table) -> int:
    """Return the number of images of every run that are scored first."""
    pilot = study.get("pilot", 0 if "stop" in study else PILOT_IMAGES)
    if not isinstance(pilot, int) or isinstance(pilot, bool) or pilot < 0:
        raise UserError(f"pilot = {pilot!r}: expected a number of images; 0: no pilot.")
    return pilot


def margin_of(study: Table) -> float | None:
    """Return the difference of accuracies that counts as none; None: not set."""
    margin = study.get("margin")
    if margin is None:
        return None
    if not isinstance(margin, float) or not 0 < margin < 1:
        raise UserError(
            f"margin = {margin!r}: expected a difference of accuracies such as 0.02; runs that"
            " differ by less count as equal, where a test shows it."
        )
    return margin


@dataclass(frozen=True)
class Rounds:
    """How a study stops: its question, and the images of its rounds."""

    stop: Stop
    first: int = 50  # number of images of the first round
    growth: float = 1.5  # images of a round over those of the round before


def rounds_of(study: Table) -> Rounds | None:
    """Return how a study stops; None: it scores all images of every run."""
    stop, unused = study.get("stop"), {"first_round", "growth"} & set(study)
    if stop is None:
        if unused:
            raise UserError(f'{unused.pop()} is of a study that stops: write stop = "best" too.')
        return None
    if stop not in get_args(Stop):
        raise UserError(
            f'stop = {stop!r}: write stop = "best" to end when one method is shown to be the best,'
            ' or stop = "ranked" to end when the order of all is shown.'
        )
    first, growth = study.get("first_round", Rounds.first), study.get("growth", Rounds.growth)
    if not isinstance(first, int) or isinstance(first, bool) or first < 1:
        raise UserError(f"first_round = {first!r}: expected a number of images, such as 50.")
    if not isinstance(growth, float) or not 1 < growth <= 100:
        raise UserError(f"growth = {growth!r}: expected a factor above 1, such as 1.5.")
    if "limit" in study:
        raise UserError("stop and limit both end runs. Keep one of the two.")
    if "pilot" in study:
        raise UserError("pilot: the first round of a study that stops is its pilot: first_round.")
    return Rounds(cast(Stop, stop), first, growth)


def groups_of(study: Table, labels: Mapping[str, Mapping[str, None]]) -> dict[str, tuple[str, ...]]:
    """Return the name of each group of backbones → their labels."""
    groups = study.get("backbone_groups", {})
    if not isinstance(groups, dict):
        raise UserError(
            'backbone_groups is a table: [backbone_groups], and below it sd = ["sd15", "sd21"].'
        )
    backbones, read = labels.get("backbone", {}), dict[str, tuple[str, ...]]()
    placed: dict[str, str] = {}
    for group, names in groups.items():
        if not isinstance(names, list) or not names:
            raise UserError(f'[backbone_groups]: {group} is a list: {group} = ["sd15", "sd21"].')
        for name in map(in_text, names):
            if name not in backbones:
                close = did_you_mean(name, backbones)
                raise UserError(f"[backbone_groups]: the study has no backbone {name!r}.{close}")
            if placed.setdefault(name, group) != group:
                raise UserError(f"[backbone_groups]: {name} is in {placed[name]} and in {group}.")
        read[group] = tuple(dict.fromkeys(map(in_text, names)))
    return read


def whole_groups_of(study: Table) -> bool:
    """Return whether images of one group are drawn together."""
    whole = study.get("whole_groups", False)
    if not isinstance(whole, bool):
        raise UserError(f"whole_groups = {whole!r}: expected true or false, without quotes.")
    return whole


def over_of(study: Table, cells: Sequence[Mapping[str, str]]) -> Over:
    """Return what tests and intervals are over; over seeds, all methods have the same seeds."""
    over = study.get("over", "images")
    if over == "images":
        return "images"
    if over != "seeds":
        raise UserError(
            f'over = {over!r}: write over = "seeds" for tests over other images and other seeds;'
            " without it they are over other images."
        )
    if "backbone_groups" in study:
        raise UserError('over = "seeds" compares methods, and no [backbone_groups].')
    seeds: dict[str, set[str]] = {}
    for axes in cells:
        method = ", ".join(f"{n} {v}" for n, v in axes.items() if n not in ("seed", "template"))
        seeds.setdefault(method, set()).add(axes.get("seed", ""))
    most = max(seeds.values(), key=len)
    for method, there in seeds.items():
        if len(most) < LEAST_SEEDS or there != most:
            raise UserError(
                f'over = "seeds" needs the same {LEAST_SEEDS} seeds or more for every method, and'
                f" {method} has {len(there)}: fewer say too little about other seeds."
                f" Write seeds = {list(range(LEAST_SEEDS))} for all."
            )
    return "seeds"


def shifts_of(study: Table, datasets: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of `datasets`, empty: any, of which the second is a shift of the first."""
    shifts = study.get("shifts", [])
    pairs: list[tuple[str, str]] = []
    for pair in shifts if isinstance(shifts, list) else [shifts]:
        match pair:
            case [str(usual), str(shifted)]:
                for name in (usual, shifted):
                    if datasets and name.split("/")[0] not in datasets:
                        close = did_you_mean(name, datasets)
                        raise UserError(f"shifts: the study has no dataset {name!r}.{close}")
                pairs.append((usual, shifted))
            case _:
                raise UserError('shifts is a list of pairs: [["imagenet", "imagenet-sketch"]].')
    return tuple(pairs)
