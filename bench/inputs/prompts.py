"""Prompts: the texts that a run asks, from a template or from a file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, did_you_mean

PLACEHOLDER = "{class}"
COLUMNS = ("prompt", "classname", "classidx")


@dataclass(frozen=True)
class Prompts:
    """All prompts of a run, in index order.

    Attributes:
        texts: [P].
        class_of_prompt: [P], the class index of each.
        sources: [P], where each came from, for messages: a class name, or `FILE:line`.
    """

    texts: tuple[str, ...]
    class_of_prompt: tuple[int, ...]
    sources: tuple[str, ...]


def from_template(
    template: str, classes: Sequence[str], phrases: Mapping[str, str] | None = None
) -> Prompts:
    """Make one prompt a class.

    Args:
        template: a text with `{class}`.
        classes: readable class names.
        phrases: class name → what stands for `{class}`; missing ones stand for themselves.

    Raises:
        UserError: the template lacks `{class}`.
    """
    if PLACEHOLDER not in template:
        raise UserError(
            f"The template {template!r} has no {PLACEHOLDER}, so that every class would get the"
            f" same prompt. Write it like 'a photo of a {PLACEHOLDER}'."
        )
    phrases = phrases or {}
    texts = [_fill(template, phrases.get(name, name)) for name in classes]
    return Prompts(tuple(texts), tuple(range(len(classes))), tuple(classes))


def _fill(template: str, phrase: str) -> str:
    if re.match(r"[aeiou]", phrase, re.IGNORECASE):  # "a photo of a {class}" → "an airplane"
        template = re.sub(r"\b([Aa])(?=\s+\{class\})", r"\1n", template)
    if re.match(r"(an?|the)\s", phrase):  # a phrase that brings its own article
        template = re.sub(r"\b[Aa]n?\s+(?=\{class\})", "", template)
    return template.replace(PLACEHOLDER, phrase)


def from_file(path: Path, classes: Sequence[str]) -> Prompts:
    """Read prompts in the reference implementation's columns `prompt,classname,classidx`.

    A class may have several prompts. `classname` is compared without case, spaces and signs.

    Raises:
        UserError: no such file, a missing column, an unknown class, a name that does not go with
            its index, an empty prompt, or a class without a prompt; with the line.
    """
    if not path.is_file():
        raise UserError(f"--prompts: there is no file {path}.")
    index = {_key(name): number for number, name in enumerate(classes)}
    texts: list[str] = []
    class_of_prompt: list[int] = []
    sources: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="")
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
            if missing:
                raise UserError(
                    f"{path}:1: the column {missing[0]!r} is missing; the first line must name"
                    f" {','.join(COLUMNS)} (found: {','.join(reader.fieldnames or ['nothing'])})."
                )
            for row in reader:
                where = f"{path}:{reader.line_num}"
                texts.append(_text_of(row["prompt"], where))
                class_of_prompt.append(_class_of(row, classes, index, where))
                sources.append(where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--prompts: {path} is not a UTF-8 CSV file: {error}.") from error
    without = [name for number, name in enumerate(classes) if number not in set(class_of_prompt)]
    if without:
        raise UserError(
            f"{path}: no prompt for {len(without)} of {len(classes)} classes:"
            f" {', '.join(map(repr, without[:5]))}{' …' if len(without) > 5 else ''}."
        )
    return Prompts(tuple(texts), tuple(class_of_prompt), tuple(sources))


def _text_of(prompt: str | None, where: str) -> str:
    if not prompt or not prompt.strip():
        raise UserError(f"{where}: the prompt is empty.")
    return prompt.strip()


def _class_of(
    row: Mapping[str, str | None], classes: Sequence[str], index: Mapping[str, int], where: str
) -> int:
    name, number = row["classname"] or "", (row["classidx"] or "").strip()
    if not number.isdecimal() or int(number) >= len(classes):
        raise UserError(
            f"{where}: classidx {number!r} is not one of 0 … {len(classes) - 1},"
            f" the indices of the {len(classes)} classes."
        )
    if _key(name) not in index:
        raise UserError(f"{where}: unknown class {name!r}.{did_you_mean(name, classes)}")
    if index[_key(name)] != int(number):
        raise UserError(
            f"{where}: class {name!r} has index {index[_key(name)]} in this dataset, not {number}."
        )
    return int(number)


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
