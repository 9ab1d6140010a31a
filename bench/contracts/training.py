"""What a backbone was trained on: which backbones' accuracies may be ranked together."""

from __future__ import annotations

UNKNOWN = "unknown"  # weights of the user's own
UNDECLARED = "undeclared"  # a spec that does not say
FITTED = "fitted"  # a spec whose class learns from a split of each dataset


def provenance(trained_on: str | None) -> str:
    """Return in words what a backbone was trained on.

    Args:
        trained_on: `dataset/split`, None for zero-shot, `unknown`, `undeclared` or `fitted`.
    """
    if trained_on is None:
        return "zero-shot"
    if trained_on == FITTED:
        return "fitted on a split of the dataset"
    if trained_on in (UNKNOWN, UNDECLARED):
        return f"training data {trained_on}"
    return f"trained on {trained_on}"


def training_group(trained_on: str | None, weights: str) -> tuple[str, str]:
    """Return what two backbones have in common exactly if they were trained on the same data.

    Two that do not say are not alike: only the same weights are.

    Args:
        trained_on: as for `provenance`.
        weights: what tells the weights apart, such as their fingerprint.
    """
    return provenance(trained_on), weights if trained_on in (UNKNOWN, UNDECLARED) else ""
