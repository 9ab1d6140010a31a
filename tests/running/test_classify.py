"""What `bench classify` says of images that have no label."""

import re
from collections.abc import Iterator
from io import BytesIO
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.refusals import refused
from PIL import Image

from bench.contracts.decision import Decided
from bench.contracts.strategy import ErrorTable, Evaluate, Outcome, Problem, Reply
from bench.running.classify import classify
from bench.running.content import Content
from bench.running.kinds import DenoiserKind
from bench.running.parts.settings import make_config


class Deciding:
    """An engine that decides every image in one way."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def score(self, samples: Any, strategy: Any) -> Iterator[Decided]:
        for sample in samples:
            yield Decided(sample, self.outcome, evaluations=9)


def decide_as(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    monkeypatch.setattr(Content, "check", lambda self: None)
    monkeypatch.setattr(DenoiserKind, "open_engine", lambda self, question: Deciding(outcome))


RACE = Outcome(  # class 1 was given up after two draws, with a lower score than the winner's
    ranking=np.array([2, 0, 1]),
    scores=np.array([0.31, 0.25, 0.30]),
    draws=np.array([40, 2, 40]),
    margin=0.01,
    margin_stderr=0.004,
    confidence=0.994,
)
SCREEN = Outcome(
    ranking=np.array([0, 1, 2]),
    scores=np.array([0.31, inf, inf]),
    draws=np.array([4, 0, 0]),
    margin=0.0,
    margin_stderr=inf,
    confidence=nan,
)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_other_noise_has_a_probability_on_fixed_draws_and_a_level_in_a_race(
    monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    """Of a race, Phi(margin / stderr) is no probability: it stopped where the margin was large."""
    decide_as(monkeypatch, RACE)
    command = ("classify", picture, "--classes", "cat,dog,hen")
    raced = bench(*command, "--strategy", "race").out
    assert (
        "at most 2 % of comparisons (delta;" in raced
        and "0.994" not in raced
        and "would change" not in raced
    )
    swept = bench(*command, "--strategy", "full").out
    assert re.search(r"other random noise would change it with probability \d\.\d", swept)
    assert "comparisons" not in swept


def test_what_was_never_drawn_has_no_score_and_no_stability(
    monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    decide_as(monkeypatch, SCREEN)
    said = bench("classify", picture, "--classes", "cat,dog,hen").out
    assert "given up before its first draw" in said and "tability" not in said
    found = bench("classify", picture, "--classes", "cat,dog,hen", "--json").json[0]
    assert found["confidence"] is None and found["ranking"][1]["score"] is None


def test_one_draw_has_no_stability() -> None:
    """As of a classifier, which scores once."""
    table = ErrorTable(Problem(np.arange(3), np.zeros(1, np.int64), np.ones(1)))
    errors = np.array([[0.1], [0.2], [0.3]], np.float32)
    table.tell(Evaluate(np.arange(3), np.arange(1)), Reply(errors, 3.0))
    outcome = table.outcome()
    assert np.isnan(outcome.confidence) and outcome.margin == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["torn", "an array"])
def test_what_is_no_image_in_memory_is_refused(kind: str) -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    image: Any = (
        np.zeros((4, 4)) if kind == "an array" else Image.open(BytesIO(file.getvalue()[:900]))
    )
    with refused("image 0"):
        classify(make_config({"dataset": "pictures"}), [image], ["a", "b"])


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    done = bench("classify", tmp_path, "--classes", "a,b")
    assert done.refuses(f"{tmp_path}/*")
