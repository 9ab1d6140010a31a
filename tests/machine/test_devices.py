"""Time on other devices: published peaks, of which a stated share is reached."""

from __future__ import annotations

import pytest

from bench.machine.environment import PEAK_UTILISATION, PEAKS, assumed_speed, seconds_on_devices


def test_the_time_follows_the_peak_of_the_dtype() -> None:
    half = seconds_on_devices(312e12, "bfloat16")
    assert half["A100"] == pytest.approx(1 / PEAK_UTILISATION)
    assert half == seconds_on_devices(312e12, "float16")
    full = seconds_on_devices(312e12, "float32")
    assert set(half) == set(full) == set(PEAKS)
    assert all(half[name] < full[name] for name in PEAKS)
    assert seconds_on_devices(156e12, "float32", tf32=True)["A100"] == pytest.approx(
        1 / PEAK_UTILISATION
    )


def test_a_gpu_of_unknown_name_does_no_more_than_its_dtype_allows() -> None:
    assert assumed_speed("cuda", "bfloat16") == pytest.approx(62.4e12)
    assert (assumed_speed("cuda", "float32") or 0) <= 19.5e12
    assert assumed_speed("tpu", "float32") is None
