"""Registrations of collections (named lists of datasets) and protocols (published experiments)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench.contracts.specs import Spec

REPRODUCE = "bench.running.verbs.reproduce:reproduce"  # runs a protocol


@dataclass(frozen=True, kw_only=True)
class CollectionSpec(Spec):
    """A named list of registered datasets, written `@NAME` on the command line."""

    kind: ClassVar[str] = "collection"

    target: str = REPRODUCE
    datasets: tuple[str, ...] = ()

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.datasets or len(set(self.datasets)) < len(self.datasets):
            yield f"datasets must be one or more different names, got {self.datasets!r}"


@dataclass(frozen=True, kw_only=True)
class ProtocolSpec(Spec):
    """A published experiment: its figure, and all settings that affect it.

    Attributes:
        settings: settings of the run, as for `bench run`; `params` is a table.
        published: the figure, or None if no first-hand figure is known.
        images: number of images behind the figure.
        differs: what cannot be reproduced, such as an unpublished subset; shown with every result.
    """

    kind: ClassVar[str] = "protocol"
    names: ClassVar[re.Pattern[str]] = re.compile(r"[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*")

    target: str = REPRODUCE
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    published: float | None = None
    images: int | None = None
    source: str = ""
    differs: tuple[str, ...] = ()

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not isinstance(self.settings.get("dataset"), str):
            yield "settings must name a dataset"
        if self.published is not None and not (0 <= self.published <= 1 and self.source):
            yield f"published must be from 0 to 1 and have a source, got {self.published}"
