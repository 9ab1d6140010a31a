"""Views of an image, from what `--views` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.contracts.specs import ViewsSpec
from bench.contracts.strategy import Ints
from bench.discovery.guard import one_line
from bench.discovery.loading import Plugins
from bench.discovery.targets import make
from bench.engine.images import CheckedViews, view_of_draw
from bench.errors import UserError
from bench.inputs.draws import DrawPlan


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


def per_level(plan: DrawPlan) -> int:
    """Return how many neighbouring draws share a noise level."""
    return 1 if plan.name == "grid" else 2


def view_of_each_draw(views: ResolvedViews | None, n_draws: int, plan: DrawPlan) -> Ints | None:
    """Return int64 [N], the view that each draw sees; draws of one level see the same one."""
    return None if views is None else view_of_draw(n_draws, views.views.count, per_level(plan))
