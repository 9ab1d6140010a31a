"""What the settings of a run name, before a file of data or weights is read."""

from dataclasses import dataclass
from pathlib import Path

from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, DatasetSpec
from bench.contracts.strategy import Ints
from bench.discovery.backbones import code_of
from bench.engine.asking import CheckedStrategy
from bench.inputs.data import DataSource
from bench.inputs.draws import DrawPlan
from bench.running.parts.decision import ConfiguredStrategy, StatedRisk
from bench.running.parts.machine import RunPrecision
from bench.running.parts.measure import ResolvedViews
from bench.running.parts.model import BackboneSource
from bench.running.parts.settings import RunConfig, Values, loading_settings
from bench.running.parts.texts import find_template


@dataclass(frozen=True, kw_only=True)
class Names:
    """A run's settings and what they name: enough for help, the grid of a study and refusals."""

    config: RunConfig  # settings as the user set them
    data: DataSource  # where the images are, and how they are read
    source: BackboneSource  # the backbone, and the weights that the user named
    one_draw: bool  # whether the backbone scores an image once, without noise
    backbone_parameters: Parameters  # all of the backbone's parameters
    precision: RunPrecision  # as far as neither the class nor the files of the weights decide it
    decider: ConfiguredStrategy
    plan: DrawPlan  # noise levels and pairs of the draws
    views: ResolvedViews | None  # views of an image; None for the image alone

    @property
    def dataset(self) -> DatasetSpec:
        """Spec of the dataset."""
        return self.data.spec

    @property
    def backbone(self) -> BackboneSpec:
        """Spec of the backbone."""
        return self.source.spec

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.decider.strategy

    @property
    def backbone_key(self) -> tuple[object, ...]:
        """What is loaded, and how: runs with equal keys can share a backbone.

        Name, version, code, precision, parameters and settings of the loading, and last the
        weights, as the settings name them.
        """
        spec, config = self.backbone, self.config
        return (
            (spec.name, spec.version, code_of(spec), self.precision.options()),
            tuple(sorted((name, repr(v)) for name, v in self.backbone_parameters.items())),
            loading_settings(config),
            (self.source.weights, config.revision, self.source.file, *self.source.loras),
        )

    @property
    def n_draws(self) -> int:
        """Number of draws, N."""
        return 1 if self.one_draw else int(self.decider.parameters["draws"])

    @property
    def batch_size(self) -> int | None:
        """The user's batch size; None if it is automatic."""
        return None if self.config.batch_size == "auto" else self.config.batch_size

    def view_of_draw(self) -> Ints | None:
        """Return int64 [N], the view of each draw; None without views; see `of_draws`."""
        return None if self.views is None else self.views.of_draws(self.n_draws, self.plan)

    def without_risk(self) -> RunConfig:
        """Return the settings with `risk` replaced by the strategy and parameters it has chosen."""
        if self.config.risk is None:
            return self.config
        params = {**self.config.params, **self.decider.parameters}
        changes = {"risk": None, "strategy": self.decider.spec.name, "params": params}
        return self.config.model_copy(update=changes)

    def stated_risk(self) -> StatedRisk | None:
        """Return the risk that the settings state for the strategy; None if they do not."""
        config = self.config
        if config.risk is None:
            return None
        return StatedRisk(config.risk, self.decider, config.params, Path(config.results))

    def recorded_settings(self) -> Values:
        """Return the settings for the manifest, with resolved names."""
        return {
            **self.config.model_dump(),
            "dataset": self.data.name,
            "data_dir": self.data.data_dir,
            "backbone": self.source.weights if self.source.file else self.backbone.name,
            "weights": self.source.file or self.source.weights,
            **self.precision.settings(),
            "template": find_template(self.config, self.backbone),
        }
