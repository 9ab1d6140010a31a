"""What a strategy cannot decide, asked in one place for runs of a model and for replays."""

from __future__ import annotations

from bench.contracts.dataset import asks_for_images
from bench.contracts.decision import MEAN
from bench.errors import UserError
from bench.running.parts.decision import Decider


def check_strategy(
    decider: Decider,
    scorer: str,  # the backbone or the recorded run, for messages
    *,
    items: tuple[int, int] | None,  # images and texts of an item; None: images share the prompts
    candidates: bool = False,  # whether each image has candidate classes of its own
    reduction: str = MEAN,  # how draws are combined into a score
    gradients: bool = True,  # whether errors can be linearised
) -> None:
    """Raise UserError if a strategy cannot decide under these conditions."""
    strategy = decider.strategy
    linearises, same_draws = strategy.linearises, strategy.same_draws
    own = "items have texts of their own" if items else "candidates differ between images"
    asks_images = items is not None and asks_for_images(*items)
    for refused, reason in (
        (strategy.uses_hierarchy and items, "descends a tree of classes, but items have none"),
        (
            linearises and (items or candidates),
            f"linearises at a mixture of prompts that all images share, but {own}. `race` needs no"
            " gradients",
        ),
        (
            linearises and not gradients,
            f"needs gradients with respect to the text conditioning, which {scorer} does not offer."
            " `race` needs none",
        ),
        (
            not same_draws and asks_images,
            "compares texts of one image only, but the items ask which image fits a text. Use"
            " --strategy full",
        ),
        (
            not same_draws and reduction != MEAN,
            f"compares means over draws, but {scorer} combines draws by {reduction}. Use --strategy"
            " full or uniform",
        ),
    ):
        if refused:
            raise UserError(f"Strategy {decider.spec.name!r} cannot be used here: it {reason}.")
