"""The prompts of a run, from templates or a file, and their combination into a score per class.

    best     every prompt is scored separately, and the best one is the class's score
    mean     the error of a class on a draw is the mean over its prompts, all of them evaluated

A strategy sees columns: one per prompt with `best`, one per class with `mean`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from bench.contracts.strategy import Floats, Floats32, Ints
from bench.discovery.declaration_checks import PLACEHOLDER
from bench.errors import UserError, did_you_mean, quoted, some_of
from bench.inputs.class_names import OTHER, find_positions, normalise_text
from bench.inputs.parsing import read_csv_file, read_lines, strip_text
from bench.machine.files import LINES, has_control

PROMPT_COLUMNS = ("prompt", "classname", "classidx")
_ARTICLE = r"\b([Aa])n?\s+(?=\{class\})"
_OWN_ARTICLE = re.compile(r"(an?|the)\s+", re.IGNORECASE)
# Letters and numbers pronounced with a vowel first: an SUV, an 8, an 18-wheeler.
_SPOKEN = re.compile(r"[AEFHILMNORSX](?=[A-Z]+\b|-)|8|1[18](?!\d)")
# A word of capitals, and a capital before a hyphen, are pronounced letter by letter.
_LETTERS = re.compile(r"[A-Z]{2,}\b|[A-Z]-")
_SILENT_H = re.compile(r"hour|honest|hono|heir", re.IGNORECASE)
# Words that begin with a vowel but are pronounced "you" or "won": a unicorn, a European, a one.
_LIKE_CONSONANT = re.compile(
    r"one\b|once\b|eu|ewe|uni(?!n|m)|us[eu]|uk|ut[eio]|ur[aei]", re.IGNORECASE
)
# Words that end with s and are not plurals.
_SINGULAR = re.compile(
    r"(ss|us|is|lens|gas|atlas|canvas|series|species|rhinoceros|albatros)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Prompts:
    """All prompts of a run, in index order."""

    texts: tuple[str, ...]  # [P]
    class_of_prompt: tuple[int, ...]  # [P], class indices
    sources: tuple[str, ...]
    """Origin of each prompt for messages, [P]: a class name, or `FILE:line`."""
    parents: tuple[int, ...] | None = None
    """Parent of each class and inner node of a tree, [C + J]; see `Problem.parents`."""

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Each text with its class index, as stored in manifests."""
        return list(zip(self.texts, self.class_of_prompt, strict=True))

    @cached_property
    def index(self) -> dict[str, int]:
        """Index of each text."""
        return {text: index for index, text in enumerate(self.texts)}


def from_template(
    template: str,
    classes: Sequence[str],
    phrases: Mapping[str, str] | None = None,
    as_written: bool = False,
) -> Prompts:
    """Return one prompt per class: a template filled in with the class's phrase, or its name.

    `phrases` has the text for each class that has one. In the toolkit's own templates, those not
    used `as_written`, the article before `{class}` is adapted. Raises UserError if the template is
    invalid or two prompts are equal.
    """
    check_template(template)
    phrases = phrases or {}
    insert = fill_as_written if as_written else fill
    texts = [insert(template, phrases.get(name, name)) for name in classes]
    return _distinct(zip(texts, range(len(classes)), classes, strict=True))


def check_template(template: str, name: str = "The template") -> None:
    """Raise UserError, about `name`, unless a template has `{class}` and no other braces."""
    if PLACEHOLDER not in template:
        raise UserError(
            f"{name} {quoted(template)} has no {PLACEHOLDER}, so that every class would get the"
            f" same prompt. Write it like 'a photo of a {PLACEHOLDER}'."
        )
    if braces := re.search(r"[{}][^{}]*\}?", template.replace(PLACEHOLDER, "")):
        raise UserError(
            f"{name} {quoted(template)} has {quoted(braces.group())}; only {PLACEHOLDER} is"
            " replaced."
        )


def from_labels(labels: Sequence[str], classes: Sequence[str]) -> Prompts:
    """Return one prompt per label; `labels` has the labels of each class, separated by spaces.

    Raises UserError if two classes have the same label, or one has control characters.
    """
    pairs = zip(labels, range(len(classes)), classes, strict=True)
    return _distinct((text, n, name) for texts, n, name in pairs for text in texts.split())


def _distinct(prompts: Iterable[tuple[str, int, str]]) -> Prompts:
    """Return prompts (UserError: control characters, or those of two sources are equal)."""
    rows, first = list(prompts), dict[str, str]()  # text → its first source
    for text, _, source in rows:
        if has_control(text, LINES):
            raise UserError(f"{source}: the prompt {quoted(text)} has control characters.")
        other = first.setdefault(normalise_text(text), source)
        if other != source:
            raise UserError(
                f"{source}: the prompt {quoted(text)} is also that of {other}; prompts must differ"
                " in more than case and spaces."
            )
    return Prompts(*zip(*rows, strict=True))


def from_file(path: Path, classes: Sequence[str]) -> Prompts:
    """Read prompts from a CSV file with the columns `prompt,classname,classidx` of the reference.

    A class may have several. `classname` is compared as `find_positions` does. Raises UserError,
    with the line, if a value is invalid or a column or prompt is missing.
    """
    lines = list(read_csv_file(path, PROMPT_COLUMNS)[1])
    index = find_positions({row["classname"] for _, row in lines}, [*enumerate(classes)])
    rows: list[tuple[str, int, str]] = []
    for line, row in lines:
        where = f"{path}:{line}"
        if not (text := strip_text(row["prompt"], "prompt", where, LINES)):
            raise UserError(f"{where}: the prompt is empty.")
        rows.append((text, _parse_class(row, classes, index, where), where))
    with_prompt = {number for _, number, _ in rows}
    if without := [name for n, name in enumerate(classes) if n not in with_prompt]:
        raise UserError(
            f"{path}: no prompt for {len(without)} of {len(classes)} classes:"
            f" {some_of(map(repr, without), 5)}."
        )
    return _distinct(rows)


def _parse_class(
    row: Mapping[str, str], classes: Sequence[str], index: Mapping[str, int], where: str
) -> int:
    name, number = row["classname"], row["classidx"].strip()
    if not number.isdecimal() or len(number) > 9 or int(number) >= len(classes):
        raise UserError(
            f"{where}: classidx {quoted(number)} is not one of 0 … {len(classes) - 1},"
            f" the indices of the {len(classes)} classes."
        )
    position = index[name]
    if position == OTHER:
        raise UserError(f"{where}: unknown class {quoted(name)}.{did_you_mean(name, classes)}")
    if position != int(number):
        raise UserError(
            f"{where}: class {name!r} has index {position} in this dataset, not {number}."
        )
    return int(number)


def fill(template: str, phrase: str) -> str:
    """Fill `phrase` into one of the toolkit's own templates, and adapt the article before it."""
    is_last = re.search(r"\{class\}\s*($|[.,;:!?])", template) is not None  # no noun follows
    noun = phrase.split(" of ")[0].split()[-1]
    is_plural = noun.endswith("s") and len(noun) > 3 and not _SINGULAR.search(noun)
    if _OWN_ARTICLE.match(phrase) or (is_last and is_plural):
        template = re.sub(_ARTICLE, "", template)
    else:
        n = "n" if _has_vowel_sound(phrase) else ""
        template = re.sub(_ARTICLE, rf"\1{n} ", template)
    return template.replace("{class}", phrase)


def fill_as_written(template: str, phrase: str) -> str:
    """Fill `phrase` into the user's template, without its article if the template has one."""
    if re.search(_ARTICLE + r"|\b[Tt]he\s+(?=\{class\})", template):
        phrase = _OWN_ARTICLE.sub("", phrase, count=1)
    return template.replace("{class}", phrase)


def _has_vowel_sound(phrase: str) -> bool:
    if _LETTERS.match(phrase) or phrase[0].isdigit():
        return _SPOKEN.match(phrase) is not None
    if _SILENT_H.match(phrase):
        return True
    return phrase[0].lower() in "aeiou" and not _LIKE_CONSONANT.match(phrase)


def read_templates(values: Sequence[str]) -> tuple[str, ...]:
    """Return templates: texts with `{class}`, or files of them (UserError if invalid or twice)."""
    where_of: dict[str, str] = {}
    for value in values:
        for template, where in _read_option(value):
            check_template(template, f"{where}the template")
            if template in where_of:
                raise UserError(f"{where}the template {template!r} occurs twice.")
            where_of[template] = where
    return tuple(where_of)


def _read_option(value: str) -> list[tuple[str, str]]:
    """Return the template that a text is, or those of a file, each with its place in messages."""
    path = Path(value)
    if PLACEHOLDER in value or not path.is_file():
        return [(value, "--template: ")]
    templates = [(line, f"{at}: ") for at, line in read_lines(path, "template")]
    if not templates:
        raise UserError(f"--template: {path} holds no templates.")
    return templates


def from_templates(
    templates: Sequence[str], classes: Sequence[str], phrases: Mapping[str, str]
) -> Prompts:
    """Return one prompt per template and class, in the order of the templates (UserError)."""
    made = [from_template(template, classes, phrases, as_written=True) for template in templates]
    columns = (zip(p.texts, p.class_of_prompt, p.sources, strict=True) for p in made)
    return _distinct(chain.from_iterable(columns))


@dataclass(frozen=True)
class Columns:
    """The columns that a strategy sees, and the prompts behind them."""

    class_of_column: Ints  # [C], class index of each column
    members: Ints  # [C, n], prompts of each column

    @property
    def per_column(self) -> int:
        """Number of prompts of a column."""
        return int(self.members.shape[1])

    def cells(self, columns: Ints, draws: Ints) -> tuple[Ints, Ints]:
        """Return the prompts and draws of a block's cells, int64 [draws · columns · per_column].

        They are ordered by draw, because the prompts of one draw share their noised latent.
        """
        prompts = self.members[columns].ravel()
        return np.tile(prompts, len(draws)), np.repeat(draws, len(prompts))

    def errors(self, values: Floats32, columns: int) -> Floats32:
        """Return a block's errors, float32 [columns, draws], from those of its cells."""
        by_cell = values.reshape(-1, columns, self.per_column)
        if self.per_column == 1:
            return by_cell[:, :, 0].T
        return np.asarray(by_cell.mean(axis=2, dtype=np.float64).T, np.float32)

    def mixture(self, mixture: Floats) -> Floats:
        """Convert the weights of a mixture of columns to weights of the prompts, float64 [P]."""
        weights = np.zeros(self.members.size)
        weights[self.members] = mixture[:, None] / self.per_column
        return weights

    def first_order(self, values: Floats32) -> Floats32:
        """Convert first-order errors of prompts, [draws, P], to those of columns, [C, draws]."""
        return np.asarray(values[:, self.members].mean(axis=2, dtype=np.float64).T, np.float32)


def make_columns(class_of_prompt: Ints, rule: str) -> Columns:
    """Return the columns for prompts of the classes `class_of_prompt`, int64 [P].

    Raises UserError if, with `mean`, classes have different numbers of prompts.
    """
    if rule == "best":
        return Columns(class_of_prompt, np.arange(len(class_of_prompt))[:, None])
    counts = np.bincount(class_of_prompt)  # rule `mean`
    if (counts != counts[0]).any():
        raise UserError(
            f"--template-rule {rule} needs the same number of prompts for each class, got"
            f" {counts.min()} to {counts.max()}."
        )
    members = np.argsort(class_of_prompt, kind="stable").reshape(len(counts), -1)
    return Columns(np.arange(len(counts)), members)
