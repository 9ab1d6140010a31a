"""Several templates: read from anywhere, and put together by rule."""

from pathlib import Path

import numpy as np
import pytest
from helpers.refusals import refused

from bench.inputs.prompts import from_templates, make_columns, read_templates


def test_templates_are_texts_or_a_file_of_them(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {class}\n\n  a drawing of a {class}  \n")
    given = read_templates(["a {class}", str(file)])
    assert given == ("a {class}", "a photo of a {class}", "a drawing of a {class}")
    prompts = from_templates(given, ("cat", "owl"), {})
    assert prompts.texts[:4] == ("a cat", "a owl", "a photo of a cat", "a photo of a owl")
    assert prompts.class_of_prompt == (0, 1) * 3


def test_two_templates_that_give_two_classes_one_prompt_are_refused() -> None:
    with refused("cat", "'my  cat'"):
        from_templates(("{class}", "my  {class}"), ("cat", "my cat"), {})
    assert len(from_templates(("{class}", "the {class}"), ("the cat", "owl"), {}).texts) == 4


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("a {class}\na photo\n", "templates.txt:2"),
        ("a {class}\n\na {class}\n", "templates.txt:3"),
        ("\n \n", "templates.txt"),
    ],
)
def test_a_file_without_use(content: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text(content)
    with refused(named):
        read_templates([str(file)])
    file.write_bytes(b"\xff{class}")
    with refused("UTF-8"):
        read_templates([str(file)])
    with refused("--template", "{class}"):
        read_templates(["a photo"])


DRAWS, CLASSES, EACH = 12, 4, 3
PROMPTS = np.tile(np.arange(CLASSES), EACH)
ERRORS = np.random.default_rng(0).standard_normal((CLASSES * EACH, DRAWS)).astype(np.float32)


@pytest.mark.parametrize("rule", ["best", "mean"])
def test_a_rule_is_its_definition(rule: str) -> None:
    columns = make_columns(PROMPTS, rule)
    wanted = {
        "best": ERRORS,
        "mean": np.stack([ERRORS[c == PROMPTS].mean(axis=0) for c in range(CLASSES)]),
    }[rule]
    for asked, draws in (
        (np.array([2, 0]), np.array([7, 1, 11])),
        (np.arange(len(wanted)), np.arange(DRAWS)),
    ):
        prompts, of_draw = columns.cells(asked, draws)
        assert len(prompts) == len(asked) * len(draws) * (EACH if rule == "mean" else 1)
        assert (np.diff(of_draw.reshape(len(draws), -1)) == 0).all()  # draw by draw
        found = columns.errors(ERRORS[prompts, of_draw], len(asked))
        np.testing.assert_allclose(found, wanted[np.ix_(asked, draws)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(columns.first_order(ERRORS.T), wanted, rtol=1e-5, atol=1e-7)
    # An error that is linear in the prompts' weights has the same mixture either way.
    mixture = np.random.default_rng(0).dirichlet(np.ones(len(wanted)))
    np.testing.assert_allclose(columns.mixture(mixture) @ ERRORS, mixture @ wanted, rtol=1e-4)


def test_a_mean_needs_as_many_prompts_for_each_class() -> None:
    uneven = np.array([0, 0, 1])
    assert make_columns(uneven, "best").per_column == 1
    with refused("1 to 2"):
        make_columns(uneven, "mean")
