"""Registrations of collections (named lists of datasets) and packaged studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import ClassVar

from bench.contracts.specs import Spec


@dataclass(frozen=True, kw_only=True)
class CollectionSpec(Spec):
    """A named list of registered datasets, written `@NAME` on the command line."""

    kind: ClassVar[str] = "collection"

    target: str = "bench.running.parts.data:expand_datasets"
    datasets: tuple[str, ...] = ()

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.datasets or len(set(self.datasets)) < len(self.datasets):
            yield f"datasets must be one or more different names, got {self.datasets!r}"


@dataclass(frozen=True, kw_only=True)
class StudySpec(Spec):
    """A study's file in an installed package, run by `bench study NAME`.

    Attributes:
        file: the TOML file, such as `importlib.resources.files(__package__) / "mine.toml"`.
    """

    kind: ClassVar[str] = "study"

    target: str = "bench.running.study.run:run_study"
    file: Traversable

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.name.endswith(".toml"):
            yield "the name must not end with .toml, which would make it the name of a file"
