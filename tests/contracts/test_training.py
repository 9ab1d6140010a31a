"""A backbone says what it was trained on, or stands apart from those that do."""

from __future__ import annotations

import pytest

from bench.contracts.specs import UNDECLARED, UNKNOWN, BackboneSpec, provenance, training_group


def test_zero_shot_is_said_on_purpose() -> None:
    silent = BackboneSpec(name="x", target="a:B")
    assert provenance(silent.trained_on) == "training data undeclared"
    assert (
        provenance(BackboneSpec(name="x", target="a:B", trained_on=None).trained_on) == "zero-shot"
    )


@pytest.mark.parametrize("trained_on", [UNKNOWN, UNDECLARED])
def test_only_the_same_weights_are_alike_where_nobody_says(trained_on: str) -> None:
    assert training_group(trained_on, "a") != training_group(trained_on, "b")
    assert training_group(trained_on, "a") == training_group(trained_on, "a")
    assert training_group(UNKNOWN, "a") != training_group(UNDECLARED, "a")


@pytest.mark.parametrize("trained_on", [None, "digits/train"])
def test_other_weights_trained_on_the_same_data_are_alike(trained_on: str | None) -> None:
    assert training_group(trained_on, "a") == training_group(trained_on, "b")
