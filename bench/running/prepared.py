"""A run that can be executed: its images, its manifest, and the backbone that scores them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.contracts.dataset import Sample
from bench.engine.asking import Engine
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.replaced import TEXT_ONLY, blind_samples
from bench.inputs.split import Split
from bench.inputs.survey import CHECKING, reading
from bench.running.executors.protocol import Executable, Executor
from bench.running.question import RunQuestion

if TYPE_CHECKING:
    from bench.running.question import CheckedBackbone


@dataclass(frozen=True, kw_only=True)
class PreparedRun(RunQuestion, Executable):
    """A validated run, before anything heavy is loaded."""

    split: Split  # the images

    def check(self) -> None:
        """Validate the run before it is scored; see `RunQuestion.check`."""
        assert self.risk is None, "`settled` chooses the strategy of a stated risk"
        super().check()

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the images asked for."""
        return self.manifest.samples

    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield images with the control, corruption and candidates of the run's settings applied.

        An id is consumed only when its image is.
        """
        split, control, shortlist = self.split, self.config.control, self.shortlist
        if control is None or control == TEXT_ONLY:
            samples = split.samples(sample_ids, self.prompts)
        else:
            samples = blind_samples(split, sample_ids, self.prompts, control)
        samples = corrupt_samples(samples, self.config.corrupt)
        if shortlist is None:
            return samples
        return (replace(s, candidates=shortlist.classes[s.sample_id]) for s in samples)

    def open_engine(
        self, shared_backbone: Callable[[], CheckedBackbone | None] = lambda: None
    ) -> Engine:
        """Load the backbone, unless it is shared, and return the engine that fits it."""
        reading.stage = f"Loading {self.backbone_name}"
        try:
            return self.kind.open_engine(self, shared_backbone())
        finally:
            # Not the previous stage, since runs may begin at the same time.
            reading.stage = CHECKING


OpenExecutor = Callable[[PreparedRun], Executor]
