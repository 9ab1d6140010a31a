"""Which kinds of scorers a setting is for: said once, on its field.

The refusal, the note of a study, the help and the table of the docs follow from it.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic.fields import FieldInfo

from bench.contracts.specs import BackboneSpec, Scorer
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.running.settings import RunConfig

WHY = {
    "denoiser": "is a denoiser",
    "classifier": "is a classifier, which scores images directly",
    "likelihood": "is a likelihood, which returns errors itself",
}


@dataclass(frozen=True)
class For:
    """The kinds of scorers that a setting is for; a field without it is for all.

    Attributes:
        scorers: the kinds.
        shared: whether all runs of a study may have it: to the others it is said to mean nothing.
            That is so where it says how a network runs, and not what is asked.
    """

    scorers: tuple[Scorer, ...] = ("denoiser",)
    shared: bool = False

    def __str__(self) -> str:
        """Return the kinds in words."""
        return " and ".join(f"{scorer}s" for scorer in self.scorers)


def scope_of(field: FieldInfo) -> For | None:
    """Return the kinds of scorers that a field is for; None: all."""
    return next((one for one in field.metadata if isinstance(one, For)), None)


def help_of(field: FieldInfo) -> str:
    """Return a field's help, with the kinds of scorers that it is for."""
    scope = scope_of(field)
    return f"{field.description}" + (f" [for {scope}]" if scope else "")


def unread(config: RunConfig, scorer: Scorer) -> dict[str, For]:
    """Return the settings that are not at their default and that a kind of scorer does not read."""
    return {
        name: scope
        for name, field in type(config).model_fields.items()
        if (scope := scope_of(field)) is not None
        and scorer not in scope.scorers
        and getattr(config, name) != field.default
    }


def check_scope(config: RunConfig, spec: BackboneSpec, name: str) -> None:
    """Refuse settings that the backbone does not read.

    Args:
        config: the settings.
        spec: the backbone's.
        name: what the run calls it.

    Raises:
        UserError: one is not at its default.
    """
    for setting, scope in unread(config, spec.scorer).items():
        raise UserError(
            f"--{setting.replace('_', '-')} is for {scope}. Backbone {name!r} {WHY[spec.scorer]}."
        )


def without_unread(
    config: RunConfig, scorer: Scorer, scorers: Set[Scorer]
) -> tuple[RunConfig, list[str]]:
    """Return the settings of one run of a study without the shared ones that only others read.

    Args:
        config: the settings.
        scorer: of the run.
        scorers: of all runs of the study.

    Returns:
        The settings, and the names of those left out.
    """
    left_out = [
        name
        for name, scope in unread(config, scorer).items()
        if scope.shared and not scorers.isdisjoint(scope.scorers)
    ]
    unset = {name: type(config).model_fields[name].default for name in left_out}
    return config.model_copy(update=unset), left_out
