"""Several prompts per class, and how they are combined into one score per class.

    best     every prompt is scored separately, and the best one is the class's score
    mean     the error of a class on a draw is the mean over its prompts, all of them evaluated

A strategy sees columns: one per prompt with `best`, one per class with `mean`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.discovery.declaration_checks import PLACEHOLDER
from bench.errors import UserError
from bench.inputs.draws import Ints
from bench.inputs.parsing import read_lines
from bench.inputs.prompts import Prompts, check_template, from_template


def read_templates(values: Sequence[str]) -> tuple[str, ...]:
    """Return the templates of `--template`: texts with `{class}`, or files of them, one per line.

    Skips empty lines. Raises UserError if a template is invalid or repeated or a file unreadable.
    """
    where_of: dict[str, str] = {}
    for value in values:
        for template, where in _read_value(value):
            check_template(template, f"{where}the template")
            if template in where_of:
                raise UserError(f"{where}the template {template!r} occurs twice.")
            where_of[template] = where
    return tuple(where_of)


def _read_value(value: str) -> list[tuple[str, str]]:
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
    """Return one prompt per template and class, in the order of the templates."""
    made = [from_template(template, classes, phrases, as_written=True) for template in templates]
    return Prompts(
        tuple(text for prompts in made for text in prompts.texts),
        tuple(index for prompts in made for index in prompts.class_of_prompt),
        tuple(source for prompts in made for source in prompts.sources),
    )


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

    def errors(self, values: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
        """Return a block's errors, float32 [columns, draws], from those of its cells."""
        by_cell = values.reshape(-1, columns, self.per_column)
        if self.per_column == 1:
            return by_cell[:, :, 0].T
        return np.asarray(by_cell.mean(axis=2, dtype=np.float64).T, np.float32)

    def mixture(self, mixture: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert the weights of a mixture of columns to weights of the prompts, float64 [P]."""
        weights = np.zeros(self.members.size)
        weights[self.members] = mixture[:, None] / self.per_column
        return weights

    def first_order(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert first-order errors of prompts, [draws, P], to those of columns, [C, draws]."""
        return np.asarray(values[:, self.members].mean(axis=2, dtype=np.float64).T, np.float32)


def make_columns(class_of_prompt: Ints, rule: str) -> Columns:
    """Return the columns for prompts of the classes `class_of_prompt`, int64 [P].

    Raises UserError if, with `mean`, classes have different numbers of prompts.
    """
    if rule == "best":
        return Columns(class_of_prompt, np.arange(len(class_of_prompt))[:, None])
    counts = np.bincount(class_of_prompt)
    if (counts != counts[0]).any():
        raise UserError(
            f"--template-rule {rule} needs the same number of prompts for each class, got"
            f" {counts.min()} to {counts.max()}."
        )
    members = np.argsort(class_of_prompt, kind="stable").reshape(len(counts), -1)
    return Columns(np.arange(len(counts)), members)
