"""What single entries of a study's file mean, each checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bench.errors import UserError, did_you_mean
from bench.inputs.data import slug
from bench.stats.crossed import LEAST_SEEDS, Over

PLURALS = {
    "datasets": "dataset",
    "splits": "split",
    "backbones": "backbone",
    "strategies": "strategy",
    "templates": "template",
    "seeds": "seed",
}
PILOT_IMAGES = 24  # images of every run that are scored first, unless the file says otherwise

MOST_TABLES = 1_000  # of one kind

Table = Mapping[str, object]


def tables_of(said: Table, key: str) -> list[Table]:
    """Return the tables `[[key]]` of a study's file."""
    found = said.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{key} is a list of tables: write it as [[{key}]].")
    if len(found) > MOST_TABLES:
        raise UserError(
            f"it has {len(found):,} tables [[{key}]]; at most {MOST_TABLES:,} are read."
        )
    return found


def in_text(value: object) -> str:
    """Return a value as tables show it."""
    if isinstance(value, list):
        return " · ".join(map(in_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def exclusion(table: Table, labels: Mapping[str, Mapping[str, None]]) -> dict[str, frozenset[str]]:
    """Return what a cell has on the axes that a table of `[[exclude]]` names."""
    found = {}
    for key, value in table.items():
        name = PLURALS.get(key, key)
        if name not in labels:
            raise UserError(f"[[exclude]]: there is no axis {key!r}.{did_you_mean(key, labels)}")
        wanted = [in_text(one) for one in (value if isinstance(value, list) else [value])]
        for one in wanted:
            if one not in labels[name]:
                close = did_you_mean(one, labels[name])
                raise UserError(f"[[exclude]]: {name} has no value {one!r}.{close}")
        found[name] = frozenset(wanted)
    if not found:
        raise UserError("[[exclude]]: an empty table would exclude everything.")
    return found


def is_excluded(axes: Mapping[str, str], excluded: Sequence[Mapping[str, frozenset[str]]]) -> bool:
    """Tell whether a cell with these values is left out."""
    return any(all(axes.get(name) in values for name, values in one.items()) for one in excluded)


def study_name(said: Table, path: Path) -> str:
    """Return the study's name: what the file says, or the file's own."""
    name = said.get("name", slug(str(path)))
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name):
        raise UserError(
            f"name = {name!r}: use lower case letters, digits, '.', '_' and '-'; the study's"
            " folder is called so."
        )
    return name


def pilot_of(said: Table) -> int:
    """Return how many images of every run are scored first."""
    pilot = said.get("pilot", PILOT_IMAGES)
    if not isinstance(pilot, int) or isinstance(pilot, bool) or pilot < 0:
        raise UserError(f"pilot = {pilot!r}: a number of images is wanted; 0: no pilot.")
    return pilot


def margin_of(said: Table) -> float | None:
    """Return the difference that counts as none; None: the file does not say."""
    margin = said.get("margin")
    if margin is None:
        return None
    if not isinstance(margin, float) or not 0 < margin < 1:
        raise UserError(
            f"margin = {margin!r}: a difference of accuracies such as 0.02 is wanted; runs that"
            " differ by less count as equal, where a test shows it."
        )
    return margin


def groups_of(said: Table, labels: Mapping[str, Mapping[str, None]]) -> dict[str, tuple[str, ...]]:
    """Return the groups of backbones: the name of each → its backbones, as tables call them."""
    given = said.get("backbone_groups", {})
    if not isinstance(given, dict):
        raise UserError(
            'backbone_groups is a table: [backbone_groups], and below it sd = ["sd15", "sd21"].'
        )
    known, found = labels.get("backbone", {}), dict[str, tuple[str, ...]]()
    placed: dict[str, str] = {}
    for group, names in given.items():
        if not isinstance(names, list) or not names:
            raise UserError(f'[backbone_groups]: {group} is a list: {group} = ["sd15", "sd21"].')
        for name in map(in_text, names):
            if name not in known:
                close = did_you_mean(name, known)
                raise UserError(f"[backbone_groups]: the study has no backbone {name!r}.{close}")
            if placed.setdefault(name, group) != group:
                raise UserError(f"[backbone_groups]: {name} is in {placed[name]} and in {group}.")
        found[group] = tuple(dict.fromkeys(map(in_text, names)))
    return found


def whole_groups_of(said: Table) -> bool:
    """Return whether images of one group are drawn together."""
    given = said.get("whole_groups", False)
    if not isinstance(given, bool):
        raise UserError(f"whole_groups = {given!r}: true or false is wanted, without quotes.")
    return given


def over_of(said: Table, cells: Sequence[Mapping[str, str]]) -> Over:
    """Return what tests and intervals are over.

    Args:
        said: the file.
        cells: the place of each run on each axis. Over seeds, all methods have the same seeds.
    """
    over = said.get("over", "images")
    if over == "images":
        return "images"
    if over != "seeds":
        raise UserError(
            f'over = {over!r}: write over = "seeds" for tests over other images and other seeds;'
            " without it they are over other images."
        )
    if "backbone_groups" in said:
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


def shifts_of(said: Table, datasets: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of datasets of which the second is a shift of the first.

    Args:
        said: the file.
        datasets: the study's, of which a pair has to be; none: they are not known by name.
    """
    given = said.get("shifts", [])
    found: list[tuple[str, str]] = []
    for pair in given if isinstance(given, list) else [given]:
        match pair:
            case [str(usual), str(shifted)]:
                for name in (usual, shifted):
                    if datasets and name.split("/")[0] not in datasets:
                        close = did_you_mean(name, datasets)
                        raise UserError(f"shifts: the study has no dataset {name!r}.{close}")
                found.append((usual, shifted))
            case _:
                raise UserError('shifts is a list of pairs: [["imagenet", "imagenet-sketch"]].')
    return tuple(found)
