"""The file of a study, written from a `bench run` that lists several datasets, models or seeds."""

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.inputs.data import slugify
from bench.inputs.parsing import split_names
from bench.machine.files import path_exists
from bench.running.parts.declaration import option
from bench.running.parts.settings import Values, about, make_config
from bench.running.study.file import TABLE_AXES, DeclaredStudy, declare
from bench.running.study.values import PLURALS
from bench.store.formats.identity import digest
from bench.store.studies import DECLARED, study_folder

LISTED = (*TABLE_AXES, "seed")  # axes that a run's settings may list
ONE_RUN = "is for one run: name one dataset, one backbone, one strategy and one seed."


def lists_in(settings: Mapping[str, object]) -> dict[str, list[str | int]]:
    """Return the datasets, backbones, strategies and seeds of which settings have a list.

    A text is a list if it has a comma and is not the path of a file or folder.
    """
    lists: dict[str, list[str | int]] = {}
    for name in LISTED:
        value = settings.get(name)
        if isinstance(value, str) and "," in value and not path_exists(value):
            value = split_names(value)
        if name == "seed" and isinstance(value, list):
            seeds = (int(seed) if str(seed).isdecimal() else seed for seed in value)
            lists[name] = [*dict.fromkeys(seeds)]
        elif isinstance(value, list):
            if wrong := [part for part in value if not isinstance(part, str | os.PathLike)]:
                raise UserError(f"{name}=[…]: expected names, got {type(wrong[0]).__name__}(…).")
            lists[name] = list(map(os.fspath, value))
    return lists


def declare_grid(settings: Values, lists: Mapping[str, Sequence[str | int]]) -> DeclaredStudy:
    """Return the study of all combinations of `lists`, with the text of its file.

    The same settings are the same study, because its name ends with a digest of the file. Raises
    UserError if a setting is invalid, or for one run only.
    """
    if empty := [name for name, values in lists.items() if not values]:
        raise UserError(f"{empty[0]} is an empty list.")
    config = make_config({**settings, **{name: values[0] for name, values in lists.items()}})
    chosen = config.model_dump(mode="json", include={*config.changed()})
    if alone := [name for name in about("one run") if name in chosen]:
        raise UserError(f"{option(alone[0])} {ONE_RUN}")
    machine = {name: chosen.pop(name) for name in about("machine") if name in chosen}
    axes = {name: [chosen[name]] for name in TABLE_AXES if name in chosen}
    axes |= {name: [*values] for name, values in lists.items()}
    # In a study's file, a list is an axis, and a list inside it is one value.
    shared = {n: [v] if isinstance(v, list) else v for n, v in chosen.items() if n not in axes}
    words = "-".join(slugify(str(value)) for values in axes.values() for value in values)
    words = re.sub("[^a-z0-9]+", "-", words)[:80].strip("-")
    name = "-".join(filter(None, [words, digest({**axes, **shared})[:8]]))
    plurals = {singular: plural for plural, singular in PLURALS.items()}
    entries = {"name": name, **{plurals[axis]: names for axis, names in axes.items()}, **shared}
    text = "".join(f"{key} = {_in_toml(value)}\n" for key, value in entries.items())
    file = study_folder(Path(config.results), name) / DECLARED
    return declare(tomllib.loads(text), name, machine, {}, file=str(file), text=text)


def _in_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_in_toml(k)} = {_in_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_in_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
