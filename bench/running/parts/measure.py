"""Settings of the error and the draws, and the draw plan and the views that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import ValidationInfo, field_validator

from bench.contracts.specs import BackboneSpec, ViewsSpec
from bench.contracts.strategy import Ints
from bench.discovery.guard import one_line
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.engine.images import CheckedViews, view_of_draw
from bench.errors import PluginError, UserError
from bench.inputs.draws import DrawPlan, combine_plan, parse_levels, parse_plan
from bench.inputs.estimand import Loss, Space, Weighting, check_estimand, parse_weighting
from bench.running.parts.setting import DENOISERS, Chapter, Parsed, Text, setting

NoisePer = Literal["run", "image"]
Latent = Literal["mean", "sample"]
_LEVELS = Parsed(parse_levels, lambda plan: str(plan).removeprefix("grid:"))
_of_errors = partial(setting, "score", scorers=DENOISERS)


class MeasureSettings(Chapter):
    """Settings of the denoising error and of the draws."""

    title = "How an error is measured"

    loss: Loss = _of_errors(default="l2", identity="resolved")
    """The loss between prediction and target that gives a cell's error."""
    space: Space = _of_errors(default="prediction", identity="resolved")
    """The space in which the error is measured; prediction: that of the model's output."""
    weighting: Annotated[Weighting, Parsed(parse_weighting)] = _of_errors(
        default=Weighting(), identity="resolved"
    )
    """The weight of each noise level: uniform, snr, exp:-7 or min-snr:5 (weights of the x_0 error),
    learned:RUN, or a CSV file level,weight."""
    guidance: float | None = _of_errors("prompts", identity="scoring", allow_inf_nan=False)
    """The scale of classifier-free guidance, for a backbone with a null conditioning; costs one
    more evaluation per draw of a request (default: no guidance)."""
    subtract_null: bool = _of_errors(
        "prompts", default=False, identity="scoring", ability="same_draws", of_split=True
    )
    """Subtract the error of the empty prompt. This affects comparisons across images only, never
    the choice among the texts of one image."""
    latent: Latent = _of_errors(default="mean", identity="scoring")
    """The latent of an image: the mean of the autoencoder's posterior, or a sample."""
    levels: Annotated[DrawPlan, _LEVELS] | None = _of_errors(identity="resolved")
    """The noise levels of the draws: a half-open range such as 100-700, a list such as
    32,65,98, or grid for all of them (default: the backbone's, or all)."""
    noise: Text | None = _of_errors(identity="content")
    """A file with the noise of the draws, float32 (N, C, H, W), instead of --seed."""
    noise_per: NoisePer = _of_errors(
        default="run",
        identity="resolved",
        excludes={"noise": "the noise of an image is generated from the seed"},
    )
    """Whether all images share the noise of a draw (run), or each has its own (image)."""
    plan: Annotated[DrawPlan, Parsed(parse_plan)] | None = _of_errors(identity="resolved")
    """How draws are paired: grid (unpaired), repeated or antithetic (default: the backbone's, or
    grid)."""
    seed: int = setting("score", default=0, identity="resolved", ge=0, lt=2**63)
    """The seed of the noise."""

    @field_validator("plan")
    @classmethod
    def _is_possible(cls, value: DrawPlan | None, info: ValidationInfo) -> DrawPlan | None:
        if value is not None and value.name == "antithetic" and info.data.get("noise"):
            raise ValueError("antithetic noise is generated from the seed; leave --noise out")
        return value

    @field_validator("weighting")
    @classmethod
    def _fits_the_error(cls, value: Weighting, info: ValidationInfo) -> Weighting:
        loss, space = info.data.get("loss", "l2"), info.data.get("space", "prediction")
        check_estimand(loss, space, value)
        return value

    @field_validator("guidance")
    @classmethod
    def _without_unit_scale(cls, value: float | None) -> float | None:
        return None if value == 1 else value  # scale 1 is the unguided prediction


def find_plan(settings: MeasureSettings, backbone: BackboneSpec) -> DrawPlan:
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


def resolve_views(text: str) -> ResolvedViews:
    """Make the views `NAME` or `NAME:VALUE`; the value sets their first parameter."""
    name, colon, value = text.partition(":")
    spec = load_plugins().views.get(name)
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
    """Return how many consecutive draws share a noise level: 1, or 2 if draws are paired."""
    return 1 if plan.name == "grid" else 2


def view_of_each_draw(views: ResolvedViews | None, n_draws: int, plan: DrawPlan) -> Ints | None:
    """Return int64 [N], the view of each draw; draws that share a noise level share a view."""
    return None if views is None else view_of_draw(n_draws, views.views.count, per_level(plan))
