"""What the identity of a run says of its noise, weights of levels and views."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.inputs.draws import read_noise
from bench.inputs.estimand import Weighting
from bench.running.parts.views import ResolvedViews
from bench.running.settings import RunConfig
from bench.store.identity import digest


def noise_identity(config: RunConfig, n_draws: int) -> str:
    """Return where the noise of the draws comes from: a seed, or the hash of a file."""
    if config.noise is None:
        return f"seed {config.seed}" + (" per image" if config.noise_per == "image" else "")
    bank = read_noise(Path(config.noise), n_draws)
    return f"sha256 {hashlib.sha256(bank.tobytes()).hexdigest()}"


def views_identity(views: ResolvedViews | None) -> str | None:
    """Return the views with their parameters and version; None: the image itself."""
    if views is None:
        return None
    name = ":".join([views.spec.name, *map(str, views.parameters.values())])
    version = views.spec.version
    return name if version == 1 else f"{name} (version {version})"


def weighting_identity(weighting: Weighting) -> str | None:
    """Return a formula as it is written, listed weights by their hash; None: all are the same."""
    if weighting.name == "uniform":
        return None
    if weighting.weights is None:
        return str(weighting)
    return f"sha256 {digest({'weights': sorted(weighting.weights.items())})}"
