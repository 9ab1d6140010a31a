"""How it decides: the strategy, its parameters, and the risk that it may take."""

from __future__ import annotations

from bench.contracts.parameters import Parameters
from bench.running.parts.setting import Part, Text, setting


class DecisionSettings(Part):
    """The strategy of a run."""

    title = "How it decides"

    strategy: Text | None = setting(
        None,
        "A registered strategy (default: the backbone's).",
        identity="resolved",
        classify=True,
        most_used=True,
    )
    params: Parameters = setting(
        {},
        "A parameter of the strategy or the backbone, KEY=VALUE; repeat for more.",
        identity="resolved",
        classify=True,
        most_used=True,
    )
    risk: float | None = setting(
        None,
        "The largest share of decisions that may differ from those of the full sweep,"
        " such as 0.02: chooses the strategy's parameters by a calibration on other images (`bench"
        " calibrate`).",
        identity="content",
        classify=True,
        gt=0,
        lt=1,
    )
