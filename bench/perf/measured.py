"""What `bench perf` found, as it prints it."""

from __future__ import annotations

from bench.running.verbs.estimate import Plan
from bench.store.fields import Count, Document


class Switches(Document):
    """The settings that move a speed and not what is decided."""

    layout: str
    attention: str
    tf32: bool
    compile: bool


class Rate(Document):
    """The bare network at one batch size."""

    batch_size: Count
    evaluations_per_second: float


class Measured(Document):
    """The speed of one backbone on this machine; medians of rounds that were taken in turns."""

    backbone: str
    device: str
    dtype: str
    settings: Switches
    bare: list[Rate]
    best_batch_size: Count
    engine: dict[str, float]
    """Strategy → evaluations per second."""
    engine_over_bare: dict[str, float]
    flops_per_evaluation: float
    peak_flops: float
    """Of the device's best matrix product, per second."""
    utilisation: float
    """Percent of that, by the fastest strategy."""
    peak_memory_bytes: int | None
    """None where the device does not say it."""
    plan: Plan | None
    """What the dataset would take; None where none is named."""
