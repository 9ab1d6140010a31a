"""The page for users of other harnesses names options and commands that exist."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from helpers.blocks import unknown
from helpers.places import ROOT

from bench.cli.main import OPTION_ELSEWHERE, cli
from bench.discovery.loading import load_plugins

PAGE = (ROOT / "docs/how-to/coming-from.md").read_text("utf-8")
ROWS = re.findall(r"^\| (?!theirs|---)(.+?) \| (.+) \|$", PAGE, re.MULTILINE)


def options() -> set[str]:
    """Return the options of `bench run`."""
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    return {name for parameter in run.params for name in parameter.opts}


@pytest.mark.parametrize(("theirs", "ours"), ROWS)
def test_ours_exist(theirs: str, ours: str) -> None:
    for code in re.findall(r"`([^`]+)`", ours):
        words = shlex.split(code)
        if words[0] == "bench":
            assert not unknown(words[1:]), code
        else:
            named = {word for word in words if word.startswith("--")}
            assert named <= options(), code


def test_the_page_and_the_hints_of_errors_agree() -> None:
    for theirs, ours in OPTION_ELSEWHERE.items():
        rows = [here for there, here in ROWS if re.search(rf"`{theirs}\b(?!_)", there)]
        assert not rows or any(ours in row for row in rows), theirs


def test_names_in_examples_are_registered() -> None:
    plugins = load_plugins()
    for name in re.findall(r"bench run ([a-z]\w+) ", PAGE):
        assert name in plugins.datasets
    for name in re.findall(r"--backbone ([a-z][\w-]+)", PAGE):
        assert name in plugins.backbones
