"""How the error of a class is measured: draws, noise levels and their weights, noise, views."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import field_validator

from bench.contracts.backbone import Denoiser
from bench.contracts.specs import BackboneSpec, ViewsSpec
from bench.contracts.strategy import Ints
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make_from
from bench.engine.images import CheckedViews, view_of_draw
from bench.errors import PluginError, UserError
from bench.inputs.draws import DrawPlan, combine_plan, parse_levels, parse_plan, read_noise
from bench.inputs.estimand import Loss, Space, Weighting, check_estimand, parse_weighting
from bench.running.parts.declaration import DENOISERS, WITH_DRAWS, Chapter, Parsed, Text, setting
from bench.store.formats.identity import digest

_LEVELS = Parsed(parse_levels, lambda plan: str(plan).removeprefix("grid:"))
_of_errors = partial(setting, "score", scorers=DENOISERS)


class MeasureSettings(Chapter):
    """How an error is measured."""

    loss: Loss = _of_errors(default="l2", identity="resolved")
    """The loss between prediction and target that gives a cell's error."""
    space: Space = _of_errors(default="prediction", identity="resolved")
    """The space in which the error is measured; prediction: that of the model's output."""
    weighting: Annotated[Weighting, Parsed(parse_weighting)] = _of_errors(
        default=Weighting(), identity="resolved", fits=check_estimand
    )
    """The weight of each noise level: uniform, snr, exp:-7 or min-snr:5 (weights of the x_0 error),
    learned:RUN, or a CSV file level,weight."""
    guidance: float | None = _of_errors(
        "prompts", identity="scoring", methods={"": Denoiser.encode_null}, allow_inf_nan=False
    )
    """The scale of classifier-free guidance, for a backbone with a null conditioning; costs one
    more evaluation per draw of a request (default: no guidance)."""
    subtract_null: bool = _of_errors(
        "prompts",
        default=False,
        identity="scoring",
        ability="same_draws",
        methods={"": Denoiser.encode_null},
        of_split=True,
    )
    """Subtract the error of the empty prompt. This affects comparisons across images only, never
    the choice among the texts of one image."""
    latent: Literal["mean", "sample"] = _of_errors(
        default="mean",
        identity="scoring",
        methods={"sample": Denoiser.posterior},
        excludes={"latents": "these views are samples of the latent already"},
    )
    """The latent of an image: the mean of the autoencoder's posterior, or a sample."""
    levels: Annotated[DrawPlan, _LEVELS] | None = _of_errors(identity="resolved")
    """The noise levels of the draws: a half-open range such as 100-700, a list such as
    32,65,98, or grid for all of them (default: the backbone's, or all)."""
    noise: Text | None = _of_errors(
        identity="content",
        excludes={
            "plan=antithetic": "antithetic noise is generated from the seed",
            "noise_per": "the noise of an image is generated from the seed",
        },
    )
    """A file with the noise of the draws, float32 (N, C, H, W), instead of --seed."""
    noise_per: Literal["run", "image"] = _of_errors(default="run", identity="resolved")
    """Whether all images share the noise of a draw (run), or each has its own (image)."""
    plan: Annotated[DrawPlan, Parsed(parse_plan)] | None = _of_errors(identity="resolved")
    """How draws are paired: grid (unpaired), repeated or antithetic (default: the backbone's, or
    grid)."""
    seed: int = setting(
        "score", default=0, scorers=WITH_DRAWS, identity="resolved", shared=True, ge=0, lt=2**63
    )
    """The seed of all that a run draws at random: the noise, and the order of draws."""
    views: Text | None = setting("images", scorers=WITH_DRAWS, identity="resolved")
    """Views of an image, among which its draws are divided: flip, turns8, crop:5 or posterior;
    `bench list views` shows all (default: the image itself)."""

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

    def of_draws(self, n_draws: int, plan: DrawPlan) -> Ints:
        """Return int64 [N], the view of each draw; draws that share a noise level share a view."""
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


def noise_identity(config: MeasureSettings, n_draws: int) -> str:
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
