"""Errata: what was wrong in stored results, which runs it touches, and whether that is cleared.

`errata.toml` is the toolkit's list. Plugins register theirs, and the `correction` of a backbone's
spec is one. A run that was scored again has another version in its manifest, so that nothing
touches it; one whose summary was computed again from its records says so there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from bench.contracts.specs import ErratumSpec
from bench.discovery.loading import load_plugins
from bench.machine.files import read_toml
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Document

if TYPE_CHECKING:
    from bench.store.summary import Summary

MARKS = {  # effect → word that marks a run in tables
    "numbers": "wrong",
    "withdrawn": "withdrawn",
    "promise": "old promise",
    "data": "data",
    "words": "",
}
UNRANKED = ("numbers", "withdrawn")  # effects that cost a run its rank
Effect = Literal["numbers", "withdrawn", "promise", "data", "words"]
State = Literal["affected", "possibly", "cleared"]


class Touch(Document):
    """An erratum that touches a run."""

    name: str  # name of the erratum
    what: str  # what was wrong, as a sentence
    effect: Effect  # kind of what was wrong, as for `ErratumSpec`
    state: State  # `possibly` if the manifest cannot tell, `cleared` if it was computed again
    mended: str  # where it was mended

    @property
    def unranks(self) -> bool:
        """Whether the run is wrong, so that it has no rank."""
        return self.state == "affected" and self.effect in UNRANKED

    @property
    def mark(self) -> str:
        """The word that marks the run in tables; "" if it needs none."""
        word = "" if self.state == "cleared" else MARKS[self.effect]
        return f"possibly {word}" if word and self.state == "possibly" else word

    @property
    def sentence(self) -> str:
        """What was wrong, whether this run is, and where it was mended."""
        begin = "Cleared: " if self.state == "cleared" else ""
        return f"{begin}{self.what} Mended in {self.mended} (erratum {self.name})."


@cache
def own_list() -> tuple[int, tuple[ErratumSpec, ...]]:
    """Return the version of the toolkit's list, and its errata."""
    table: dict[str, Any] = read_toml(files(__package__) / "errata.toml")
    specs = (
        ErratumSpec(name=name, **{**fields, "where": tuple(fields["where"])})
        for name, fields in table["errata"].items()
    )
    return int(table["version"]), tuple(specs)


def in_cell(touches: Iterable[Touch]) -> str | None:
    """Return errata and states as a cell of a CSV file, such as `a:possibly b:cleared`."""
    return " ".join(f"{touch.name}:{touch.state}" for touch in touches) or None


def all_errata() -> Iterator[ErratumSpec]:
    """Yield the errata of the toolkit and of plugins, and the corrections of backbones."""
    yield from own_list()[1]
    yield from load_plugins().errata
    for spec in load_plugins().backbones:
        if spec.correction:
            made_by = {
                "identity.backbone.name": spec.name,
                "identity.backbone.version": {"below": spec.version},
            }
            yield ErratumSpec(
                name=f"{spec.name}-{spec.version}",
                what=spec.correction,
                effect="numbers",
                where=(made_by,),
                mended=f"backbone {spec.name}, version {spec.version}",
            )


def touched(manifest: Manifest, summary: Summary | None = None) -> list[Touch]:
    """Return the errata that touch a run."""

    def meets(conditions: Mapping[str, Any]) -> bool:
        return all(_holds(_value(manifest, summary, name), conditions[name]) for name in conditions)

    cleared = summary.cleared if summary is not None and summary.cleared else ()
    return [_touch(spec, cleared) for spec in all_errata() if any(map(meets, spec.where))]


def _touch(spec: ErratumSpec, cleared: Collection[str]) -> Touch:
    state: State = "affected" if spec.certain else "possibly"
    if spec.name in cleared:
        state = "cleared"
    return Touch(
        name=spec.name, what=spec.what, effect=spec.effect, state=state, mended=spec.mended
    )


def _value(manifest: Manifest, summary: Summary | None, name: str) -> Any:
    """Return a field by its dotted name; None if it, or what it is part of, is absent."""
    first, *keys = name.split(".")
    value = summary if first == "summary" else getattr(manifest, first, None)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
    return value


def _holds(value: Any, wanted: Any) -> bool:
    """Return whether a field is as wanted: this value, one of a list, or by a word's rule."""
    if isinstance(wanted, list):
        return value in wanted
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    [(word, operand)] = wanted.items()
    if word == "present":
        return (value is not None) is operand
    if word == "other":
        return value is not None and value not in operand
    return isinstance(value, type(operand)) and bool(value < operand)  # "below"
