"""What a strategy cannot decide, asked in one place for runs of a model and for replays."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts.dataset import asks_for_images
from bench.contracts.decision import MEAN
from bench.errors import UserError
from bench.running.parts.decision import Decider


@dataclass(frozen=True)
class Conditions:
    """Where a strategy is used: with a backbone, or on the errors of a run."""

    scorer: str  # the backbone or the run, for messages
    items: tuple[int, int] | None  # images and texts of an item; None if images share the prompts
    candidates: bool  # whether each image has candidate classes of its own
    reduction: str  # how draws are combined into a score
    gradients: bool  # whether errors can be linearised

    def check(self, decider: Decider) -> None:
        """Raise UserError if the strategy cannot decide under these conditions."""
        strategy, name = decider.strategy, decider.spec.name
        if strategy.uses_hierarchy and self.items:
            reason = "descends a tree of classes, but items have none"
        elif strategy.linearises and (self.items or self.candidates):
            own = "items have texts of their own" if self.items else "candidates are each image's"
            reason = (
                f"linearises at a mixture of prompts that all images share, but {own}. `race` needs"
                " no gradients"
            )
        elif strategy.linearises and not self.gradients:
            reason = (
                "needs gradients with respect to the text conditioning, which"
                f" {self.scorer} does not offer. `race` needs no gradients"
            )
        elif strategy.same_draws:
            return
        elif self.items and asks_for_images(*self.items):
            reason = (
                "compares texts of one image only, but the items ask which image fits a text. Use"
                " --strategy full"
            )
        elif self.reduction != MEAN:
            reason = (
                f"compares means over draws, but {self.scorer} combines draws by {self.reduction}."
                " Use --strategy full or uniform"
            )
        else:
            return
        raise UserError(f"Strategy {name!r} cannot be used here: it {reason}.")
