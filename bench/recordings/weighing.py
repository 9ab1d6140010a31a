"""Reweight recorded errors: other weights over the noise levels need no run of the model."""

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
    """Raise UserError if the errors are of another loss or in another space; None accepts any."""
    scoring = recording.manifest.identity.scoring
    for name, required, recorded, choices in (
        ("loss", loss, scoring.loss, get_args(Loss)),
        ("space", space, scoring.space, get_args(Space)),
    ):
        if required is not None and required not in choices:
            raise UserError(f"--{name} {required} is not one of {', '.join(choices)}.")
        if required not in (None, recorded):
            raise UserError(
                f"--{name} {required}: {recording.manifest.run_id} recorded errors with --{name}"
                f" {recorded}, from which others cannot be computed. Record them once with:"
                f" --strategy full --save-errors --{name} {required}"
            )


def reweight(recording: Recording, text: str) -> Recording:
    """Return the recording with the weighting `text`, in the form of `--weighting`.

    Raises:
        UserError: the weighting is invalid or learned, does not fit loss and space, or the run did
            not record the levels of its errors.
    """
    try:
        weighting = parse_weighting(text)
        scoring = recording.manifest.identity.scoring
        check_estimand(str(scoring.loss), str(scoring.space), weighting)
    except ValueError as error:
        raise UserError(f"--weighting: {error}.") from None
    if weighting.name == "learned":
        raise UserError(
            "--weighting learned:RUN is for `bench run`, which checks that RUN has other images."
        )
    draws = read_draws(recording.path, recording.n_draws)
    if draws is None:
        raise UserError(
            f"--weighting: {recording.path} did not record the levels of its errors. Record them"
            " with: --strategy full --save-errors"
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
