"""Views of an image, from what `--views` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.contracts.specs import ViewsSpec
from bench.discovery.guard import one_line
from bench.discovery.loading import Plugins
from bench.discovery.targets import make
from bench.engine.viewing import CheckedViews
from bench.errors import UserError


@dataclass(frozen=True)
class ResolvedViews:
    """Views, made from what `--views` said.

    Attributes:
        spec: their spec.
        parameters: with their values.
        views: themselves.
    """

    spec: ViewsSpec
    parameters: Mapping[str, Any]
    views: CheckedViews


def resolve_views(text: str, plugins: Plugins) -> ResolvedViews:
    """Return the views of `NAME` or `NAME:VALUE`; the value is that of their first parameter.

    Raises:
        UserError: the name is unknown, or the value makes no sense.
    """
    name, colon, value = text.partition(":")
    spec = plugins.views.get(name)
    first = next(iter(spec.parameters), None)
    if colon and first is None:
        raise UserError(f"--views {text}: the views {name!r} take no value.")
    parameters = spec.resolve_parameters({first: value} if colon and first else {})
    try:
        made = make(spec, passing=(ValueError,), **parameters)
    except ValueError as error:
        raise UserError(f"--views {text}: {one_line(error)}.") from None
    return ResolvedViews(spec, parameters, CheckedViews(made, spec.label))
