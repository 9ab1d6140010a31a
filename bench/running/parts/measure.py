"""How the error of a class is measured: draws, levels, noise, weights and views."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.specs import BackboneSpec, ViewsSpec
from bench.contracts.strategy import Ints
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make_from
from bench.engine.images import CheckedViews, view_of_draw
from bench.errors import PluginError, UserError
from bench.inputs.draws import DrawPlan, combine_plan, parse_plan, read_noise
from bench.inputs.estimand import Weighting
from bench.running.settings import RunConfig
from bench.store.identity import digest


def find_plan(settings: RunConfig, backbone: BackboneSpec) -> DrawPlan:
    """Return the plan of the draws (their levels and pairs): the user's, else the backbone's."""
    try:
        usual = parse_plan(backbone.plan)
    except ValueError as error:
        raise PluginError(backbone.label, f"its plan: {error}") from None
    return combine_plan(settings.plan, settings.levels, usual)


@dataclass(frozen=True)
class ResolvedViews:
    """The views that `--views` names, with their spec and parameters."""

    spec: ViewsSpec
    parameters: Mapping[str, Any]
    views: CheckedViews

    def of_draws(self, n_draws: int, plan: DrawPlan) -> Ints:
        """Return int64 [N], the view of each draw; draws that share a noise level share a view.

        Raises UserError if there are fewer draws than views.
        """
        count, per_level = self.views.count, 1 if plan.name == "grid" else 2  # consecutive draws
        turns = view_of_draw(n_draws, count, per_level)
        if len(set(turns.tolist())) < count:
            raise UserError(
                f"--views {self.spec.name}: draws={n_draws} cannot see all of its {count} views."
                f" Use --set draws={count * per_level} or more."
            )
        return turns

    @property
    def identity(self) -> str:
        """The entry of the identity for the views."""
        name = ":".join([self.spec.name, *map(str, self.parameters.values())])
        return name if self.spec.version == 1 else f"{name} (version {self.spec.version})"


def resolve_views(text: str) -> ResolvedViews:
    """Make the views `NAME` or `NAME:VALUE`; the value sets their first parameter."""
    name, colon, value = text.partition(":")
    spec = load_plugins().views.get(name)
    first = next(iter(spec.parameters), None)
    if colon and first is None:
        raise UserError(f"--views {text}: the views {name!r} take no value.")
    parameters = spec.resolve_parameters({first: value} if colon and first else {})
    return ResolvedViews(spec, parameters, CheckedViews(make_from(spec, parameters), spec.label))


def noise_identity(config: RunConfig, n_draws: int) -> str:
    """Return the entry of the identity for the noise: the seed, or the hash of the file."""
    if config.noise is None:
        return f"seed {config.seed}" + (" per image" if config.noise_per == "image" else "")
    bank = read_noise(Path(config.noise), n_draws)
    return f"sha256 {hashlib.sha256(bank.tobytes()).hexdigest()}"


def weighting_identity(weighting: Weighting) -> str | None:
    """Return a formula as written, or the hash of listed weights; None for equal weights."""
    if weighting.name == "uniform":
        return None
    if weighting.weights is None:
        return str(weighting)
    return f"sha256 {digest({'weights': sorted(weighting.weights.items())})}"
