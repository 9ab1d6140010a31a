"""Time on other devices: published peaks, of which a stated share is reached."""

from __future__ import annotations

import pytest

from bench.machine.precision import PRECISIONS
from bench.machine.speeds import PEAKS, UTILISATION, assumed_speed, seconds_on_devices


def test_the_time_follows_the_peak_of_the_precision() -> None:
    half = seconds_on_devices(312e12, "bfloat16")
    assert half["A100"] == pytest.approx(1 / UTILISATION["bfloat16"])
    assert half == seconds_on_devices(312e12, "float16")
    full = seconds_on_devices(312e12, "float32")
    assert set(half) == set(full) == set(PEAKS)
    assert all(half[name] < full[name] for name in PEAKS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_devices_are_ordered_as_their_peaks_are(precision: str) -> None:
    seconds = seconds_on_devices(1e15, precision)  # type: ignore[arg-type]
    by_peak = sorted(PEAKS, key=lambda name: -PEAKS[name][precision])  # type: ignore[index]
    assert sorted(seconds, key=lambda name: seconds[name]) == by_peak


def test_a_gpu_of_unknown_name_does_no_more_than_its_precision_allows() -> None:
    assert assumed_speed("cuda", "bfloat16") == pytest.approx(62.4e12)
    assert (assumed_speed("cuda", "float32") or 0) <= 19.5e12
    assert assumed_speed("tpu", "float32") is None
