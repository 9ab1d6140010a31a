"""Several prompts per class, and how they make one score per class.

    best     every prompt is scored by itself, and a class is as good as its best prompt
    mean     a class's error on a draw is the mean over its prompts, each evaluated
    spread   each draw uses one prompt of every class, in turn; no evaluation more than with one

A strategy sees columns: of `best` one per prompt, of the others one per class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.discovery.places import PLACEHOLDER
from bench.errors import UserError
from bench.inputs.draws import Ints
from bench.inputs.prompts import Prompts, from_template
from bench.inputs.turns import in_turn
from bench.machine.files import read_text

RULES = ("best", "mean", "spread")


def read_templates(values: Sequence[str]) -> tuple[str, ...]:
    """Return the templates of `--template`: each a text with `{class}`, or a file of them.

    A file holds one template per line; empty lines are skipped.

    Raises:
        UserError: a text or a line without `{class}`, a template said twice, or an empty file.
    """
    where_of: dict[str, str] = {}
    for value in values:
        for template, where in _read(value):
            if PLACEHOLDER not in template:
                raise UserError(
                    f"{where}the template {template!r} has no {PLACEHOLDER}, so that every class"
                    f" would get the same prompt. Write it like 'a photo of a {PLACEHOLDER}'."
                )
            if template in where_of:
                raise UserError(f"{where}the template {template!r} was there before.")
            where_of[template] = where
    return tuple(where_of)


def _read(value: str) -> list[tuple[str, str]]:
    path = Path(value)
    if PLACEHOLDER in value or not path.is_file():
        return [(value, "--template: ")]
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--template: {path} is not a UTF-8 text file: {error}.") from error
    templates = [(line.strip(), f"{path}:{n}: ") for n, line in enumerate(lines, 1) if line.strip()]
    if not templates:
        raise UserError(f"--template: {path} holds no templates.")
    return templates


def from_templates(
    templates: Sequence[str], classes: Sequence[str], phrases: Mapping[str, str]
) -> Prompts:
    """Return one prompt per template and class, template by template."""
    made = [from_template(template, classes, phrases, as_written=True) for template in templates]
    return Prompts(
        tuple(text for prompts in made for text in prompts.texts),
        tuple(index for prompts in made for index in prompts.class_of_prompt),
        tuple(source for prompts in made for source in prompts.sources),
    )


@dataclass(frozen=True)
class Columns:
    """What a strategy sees of the prompts, and the cells behind it.

    Attributes:
        class_of_column: int64 [C], the class index of each column.
        members: int64 [C, n], the prompts of each column.
        shown: int64 [N, j], which of a column's n prompts are evaluated on each draw.
    """

    class_of_column: Ints
    members: Ints
    shown: Ints

    @property
    def per_column(self) -> int:
        """How many prompts are evaluated for a column on a draw."""
        return int(self.shown.shape[1])

    def cells(self, columns: Ints, draws: Ints) -> tuple[Ints, Ints]:
        """Return the prompts and draws of a block's cells, int64 [draws · columns · per_column].

        Draw by draw: the prompts of one draw share their noised latent.
        """
        prompts = self.members[columns][:, self.shown[draws]].transpose(1, 0, 2)
        return prompts.ravel(), np.repeat(draws, len(columns) * self.per_column)

    def errors(self, values: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
        """Return a block's errors, float32 [columns, draws], from those of its cells."""
        by_cell = values.reshape(-1, columns, self.per_column)
        if self.per_column == 1:
            return by_cell[:, :, 0].T
        return np.asarray(by_cell.mean(axis=2, dtype=np.float64).T, np.float32)

    def mixture(self, mixture: NDArray[np.float64], draw: int) -> NDArray[np.float64]:
        """Return the weights over the prompts, float64 [P], that a mixture of columns means."""
        weights = np.zeros(self.members.size)
        weights[self.members[:, self.shown[draw]]] = mixture[:, None] / self.per_column
        return weights

    def first_order(self, values: NDArray[np.float32], draw: int) -> NDArray[np.float32]:
        """Return the columns' first-order errors on a draw, float32 [C], from the prompts' [P]."""
        shown = values[self.members[:, self.shown[draw]]]
        return np.asarray(shown.mean(axis=1, dtype=np.float64), np.float32)


def make_columns(class_of_prompt: Ints, rule: str, n_draws: int, per_level: int = 1) -> Columns:
    """Return the columns of a rule.

    Args:
        class_of_prompt: int64 [P].
        rule: one of `RULES`.
        n_draws: N.
        per_level: draws of the plan that share a level, and so a prompt: 2 of a paired plan.

    Raises:
        UserError: a class has more prompts than another, which `mean` and `spread` cannot use.
    """
    if rule == "best":
        prompts = np.arange(len(class_of_prompt))
        return Columns(class_of_prompt, prompts[:, None], np.zeros((n_draws, 1), np.int64))
    counts = np.bincount(class_of_prompt)
    if (counts != counts[0]).any():
        raise UserError(
            f"--template-rule {rule} needs as many prompts for each class; there are"
            f" {counts.min()} to {counts.max()}."
        )
    members = np.argsort(class_of_prompt, kind="stable").reshape(len(counts), -1)
    n = members.shape[1]
    if rule == "mean":
        shown = np.tile(np.arange(n), (n_draws, 1))
    else:
        turns = in_turn(-(-n_draws // per_level), n)
        shown = np.repeat(turns, per_level)[:n_draws, None]
    return Columns(np.arange(len(counts)), members, shown)
