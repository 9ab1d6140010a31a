"""The images of a run, as its settings want them seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from bench.contracts.dataset import Sample
from bench.inputs.controls import TEXT_ONLY, blinded
from bench.running.prepared import Prepared


def run_samples(prepared: Prepared, sample_ids: Iterable[str]) -> Iterator[Sample]:
    """Yield a run's images with these ids, blinded and with candidates as its settings say."""
    split, control, shortlist = prepared.split, prepared.config.control, prepared.shortlist
    assert split is not None, "prepared without images"
    if control is None or control == TEXT_ONLY:
        samples = split.samples(sample_ids, prepared.prompts)
    else:
        samples = blinded(split, sample_ids, prepared.prompts, control)
    if shortlist is None:
        return samples
    return (replace(s, candidates=shortlist.classes[s.sample_id]) for s in samples)
