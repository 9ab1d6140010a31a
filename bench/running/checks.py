"""What only the backbone's class can tell, checked before its weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contracts.backbone import LINEARISATION_COST
from bench.discovery.targets import load_target
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.running.prepare import Prepared
    from bench.running.resolve import Resolved


def check(prepared: Prepared) -> None:
    """Refuse a run that could not be scored; imports the backbone's class.

    Raises:
        UserError: weights are absent or damaged, a prompt is too long, or there are no gradients
            where the strategy needs them.
    """
    if prepared.absent:
        raise UserError(prepared.absent[0])
    check_weights(prepared)
    _check_token_lengths(prepared)
    _check_linearisable(prepared.resolved)


def check_weights(prepared: Prepared) -> None:
    """Refuse weights that the backbone would refuse, as far as it knows without their tensors."""
    resolved = prepared.resolved
    refuse = getattr(load_target(resolved.backbone), "check_weights", None)
    if refuse is not None:
        refuse(prepared.weights, dtype=prepared.config.dtype, **resolved.backbone_parameters)


def _check_token_lengths(prepared: Prepared) -> None:
    """Refuse prompts that the tokenizer would cut, where the backbone can count tokens."""
    counted = token_counts(prepared)
    if counted is None:
        return
    prompts, (counts, most) = prepared.prompts, counted
    for source, text, n in zip(prompts.sources, prompts.texts, counts, strict=True):
        if n > most:
            raise UserError(
                f"{source}: the prompt has {n} tokens and would be cut at {most}: {text!r}."
            )


def token_counts(prepared: Prepared) -> tuple[list[int], int] | None:
    """Return each prompt's tokens and the most there may be; None of a backbone without them."""
    count = getattr(load_target(prepared.resolved.backbone), "token_counts", None)
    return count(prepared.weights, prepared.prompts.texts) if count else None


def _check_linearisable(resolved: Resolved) -> None:
    """Refuse a strategy that linearises with a backbone that cannot."""
    if linearises(resolved) and not can_linearise(resolved):
        name = resolved.strategy_spec.name
        raise UserError(
            f"Strategy {name!r} needs gradients to the text conditioning, and backbone"
            f" {resolved.backbone_name!r} does not offer them. `race` decides without."
        )


def linearises(resolved: Resolved) -> bool:
    """Return whether the strategy asks for first-order errors."""
    return bool(getattr(resolved.strategy, "linearises", False))


def can_linearise(resolved: Resolved) -> bool:
    """Return whether the backbone offers gradients to its conditioning."""
    return bool(getattr(load_target(resolved.backbone), "can_linearise", False))


def linearisation_cost(prepared: Prepared) -> float:
    """Return what a linearised draw counts as, in evaluations: what the backbone's class says."""
    count = getattr(load_target(prepared.resolved.backbone), "linearisation_cost", None)
    if count is None:
        return LINEARISATION_COST
    return float(count(prepared.weights, prepared.resolved.backbone_parameters.get("resolution")))
