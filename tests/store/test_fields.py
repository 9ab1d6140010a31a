"""Stored JSON: what is refused while it is read, with its file and place, and what is written."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.refusals import refused
from pydantic import BaseModel, ValidationError

import bench
from bench.store.formats.fields import (
    Count,
    Document,
    Interval,
    RunId,
    read_json,
    to_json,
    validated,
)


class Paper(Document):
    pages: Count
    title: str = "none"
    span: Interval = (0.0, 1.0)
    run: RunId = "run"


@pytest.mark.parametrize(
    "wrong",
    [
        {"pages": -1},
        {"pages": 2**63},
        {"pages": "3"},
        {"pages": 1, "span": [0.6, 0.5]},
        {"pages": 1, "span": [0, 1.5]},
        {"pages": 1, "run": ".."},
        {"pages": 1, "run": "a/b"},
        {"pages": 1, "run": ""},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Paper.model_validate(wrong)


@pytest.mark.parametrize("content", ["", "{", "NaN", "[Infinity]"])
def test_what_is_not_json_is_named_by_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "paper.json").write_text(content)
    with refused("paper.json"):
        read_json(tmp_path, "paper.json")
    with refused("absent.json"):
        read_json(tmp_path, "absent.json")


def test_a_value_is_validated_or_named_with_the_first_field_that_is_wrong() -> None:
    assert validated({"pages": 3}, Paper, "a paper").pages == 3
    for wrong, problem in (({"title": "x"}, "pages"), ([3], "a paper")):
        with refused(problem, kind=ValueError):
            validated(wrong, Paper, "a paper")


def test_json_is_indented_and_holds_no_nan() -> None:
    assert to_json({"a": ["ü"]}) == '{\n "a": [\n  "ü"\n ]\n}\n'
    with refused("JSON", kind=ValueError):
        to_json(float("nan"))


def _documents(of: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for kind in of.__subclasses__():
        yield kind
        yield from _documents(kind)


def test_no_field_states_a_constraint_twice() -> None:
    """Pydantic takes one of the two in silence: a source of at least 10 characters was of 1."""
    for module in pkgutil.walk_packages(bench.__path__, "bench."):
        if module.name != "bench.__main__":
            importlib.import_module(module.name)
    own = [kind for kind in _documents() if kind.__module__.startswith("bench")]
    assert len(own) > 50
    for kind in own:
        for name, field in kind.model_fields.items():
            constraints = [type(constraint) for constraint in field.metadata]
            assert len(constraints) == len({*constraints}), f"{kind.__name__}.{name}"
