"""Recorded errors weighed anew: other weights need no model, another loss or space does."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from bench.errors import UserError
from bench.inputs.estimand import Loss, Space, check_estimand, draw_weights, parse_weighting
from bench.recordings.recording import Recording
from bench.running.scorers.draws import weighting_identity
from bench.store.draw_table import read_draws
from bench.store.fields import without_none
from bench.store.identity import ScoringIdentity


def check_measured(recording: Recording, loss: str | None, space: str | None) -> None:
    """Refuse errors measured with another loss or in another space; None: any (UserError)."""
    scoring = recording.manifest.identity.scoring
    for name, wanted, recorded, kind in (
        ("loss", loss, scoring.loss, Loss),
        ("space", space, scoring.space, Space),
    ):
        if wanted is not None and wanted not in get_args(kind):
            raise UserError(f"--{name} {wanted} is not one of {', '.join(get_args(kind))}.")
        if wanted not in (None, recorded):
            raise UserError(
                f"--{name} {wanted}: {recording.manifest.run_id} recorded errors with --{name}"
                f" {recorded}, from which others cannot be computed. Record them once with:"
                f" --strategy full --save-errors --{name} {wanted}"
            )


def weighed(recording: Recording, text: str) -> Recording:
    """Return the recording with other weights over the levels, as `--weighting` (UserError)."""
    try:
        weighting = parse_weighting(text)
        scoring = recording.manifest.identity.scoring
        check_estimand(str(scoring.loss), str(scoring.space), weighting)
    except ValueError as error:
        raise UserError(f"--weighting: {error}.") from None
    if weighting.name == "learned":
        raise UserError(
            "--weighting learned:RUN is for `bench run`, which checks that RUN is of other images."
        )
    draws = read_draws(recording.path, recording.n_draws)
    if draws is None:
        raise UserError(
            f"--weighting: {recording.path} does not say which levels its errors are of. Record"
            " them with: --strategy full --save-errors"
        )
    weights = draw_weights(weighting, draws.table, str(scoring.space), draws.levels, draws.n_levels)
    kept = {name: value for name, value in scoring.plain().items() if name != "weighting"}
    scored = ScoringIdentity(**kept, **without_none(weighting=weighting_identity(weighting)))
    identity = recording.manifest.identity.model_copy(update={"scoring": scored})
    return replace(
        recording,
        problem=replace(recording.problem, weights=weights),
        manifest=recording.manifest.model_copy(update={"identity": identity}),
    )
