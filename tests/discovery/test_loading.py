"""Plugins: one that fails harms nobody else, and says what is wrong with it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command import Finished, bench
from helpers.matrix import matrix
from helpers.places import ROOT
from helpers.plugins import install

from bench.discovery.loading import load_plugins
from bench.discovery.queries import non_default_params

GOOD = """
from bench import hookimpl

@hookimpl
def register_datasets(register):
    register("mine", target="nowhere:Mine", classes=("a", "b"), splits={"test": 2}, split="test")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, on the path; what is loaded from it is forgotten."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    load_plugins.cache_clear()


def bench_with(site: Path, *arguments: object, **variables: str | None) -> Finished:
    """Run the command with the plugins installed in `site`, and no others, as a process would.

    What is loaded already is loaded anew; `test_hostile_plugins` pays for a process.
    """
    names = [info.name.removesuffix("-1.0.dist-info") for info in site.glob("*.dist-info")]
    wanted = {"BENCH_LOAD_PLUGINS": ",".join(names), **variables}
    load_plugins.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in wanted.items():
            if value is None:
                patch.delenv(variable)
            else:
                patch.setenv(variable, value)
        try:
            return bench(*arguments)
        finally:
            for name in names:
                sys.modules.pop(name, None)


def listed(site: Path, **variables: str | None) -> dict[str, dict[str, object]]:
    rows = bench_with(site, "plugins", "--json", **variables).json
    return {row["distribution"]: row for row in rows}


BROKEN = {
    "import": ("import no_such_package\n", "no_such_package"),
    "raise": (GOOD + "    raise RuntimeError('too bad')\n", "RuntimeError: too bad"),
    "misspelt hook": (GOOD.replace("register_datasets", "register_dataset"), "register_dataset"),
    "bad field": (GOOD.replace("split=", "slpit="), "slpit"),
}


@pytest.mark.parametrize("case", matrix(BROKEN, ["raise", "bad field"]))
def test_a_broken_plugin_is_shown_and_nothing_else_suffers(case: str, site: Path) -> None:
    source, reason = BROKEN[case]
    install(site, "broken", source)
    install(site, "zealous", GOOD.replace('"mine"', '"other"'))
    plugins = listed(site)
    assert plugins["broken"]["status"] == "failed" and reason in str(plugins["broken"]["error"])
    assert plugins["zealous"]["status"] == "loaded"
    assert plugins["zealous"]["registered"] == {"dataset": ["other"]}
    names = [row["name"] for row in bench_with(site, "list", "datasets", "--json").json]
    assert "digits" in names and "other" in names and "mine" not in names
    # Using its name gives its error.
    done = bench_with(site, "run", "mine")
    assert done.refuses(reason)
    strict = bench_with(site, "plugins", BENCH_STRICT_PLUGINS="1")
    assert strict.code != 0 and reason in strict.err


def test_two_plugins_that_claim_one_name(site: Path) -> None:
    install(site, "first", GOOD)
    install(site, "second", GOOD)
    done = bench_with(site, "run", "mine")
    assert done.refuses("'first'", "'second'")
    assert "BENCH_BLOCK_PLUGINS=second" in done.err
    classified = ("run", "mine", "--backbone", "majority")
    unblocked = bench_with(site, *classified, "--dry-run", BENCH_BLOCK_PLUGINS="second")
    assert "not installed" in unblocked.out and not unblocked.err  # only its data is missing


def test_which_plugins_are_loaded(site: Path) -> None:
    install(site, "first", GOOD)
    install(site, "second", GOOD.replace('"mine"', '"other"'))
    own = "diffusion-classifier-bench"
    # Others may be installed beside them.
    assert set(listed(site, BENCH_LOAD_PLUGINS=None)) >= {own, "first", "second"}
    assert set(listed(site, BENCH_LOAD_PLUGINS="")) == {own}
    assert set(listed(site, BENCH_LOAD_PLUGINS="second")) == {own, "second"}
    blocked = set(listed(site, BENCH_LOAD_PLUGINS=None, BENCH_BLOCK_PLUGINS="second"))
    assert blocked >= {own, "first"} and "second" not in blocked


def test_a_missing_target_or_extra_is_explained(site: Path) -> None:
    extra = GOOD.replace("classes=", 'extra="mine[all]", classes=')
    install(site, "first", extra)
    done = bench_with(site, "run", "mine")
    assert done.refuses("'nowhere'")
    assert "pip install 'mine[all]'" in done.err


def test_plugin_commands_and_events(site: Path, tmp_path: Path) -> None:
    install(
        site,
        "listener",
        """
import click, os
from bench import hookimpl

def greet():
    click.echo("hello there")

def fail():
    raise ValueError("no such\\nflower")

@hookimpl
def register_commands(cli):
    cli.add_command(click.Command("hello", callback=greet, help="Greet."))
    cli.add_command(click.Command("fails", callback=fail))
    cli.add_command(click.Command("exits", callback=lambda: exit(5)))

@hookimpl
def sample_scored(record):  # fewer arguments than the hook offers is fine
    with open(os.environ["EVENTS"], "a") as file:
        file.write(record["sample_id"] + "\\n")

@hookimpl
def run_finished(summary):
    raise RuntimeError("a listener that fails")
""",
    )
    assert "Greet." in bench_with(site, "--help").out
    assert bench_with(site, "hello").out == "hello there\n"
    failed = bench_with(site, "fails")
    assert failed.code == 2 and "Traceback" not in failed.err
    said = "its command 'fails' raised ValueError: no such flower"
    assert f"plugin 'listener' of listener: {said}" in failed.err
    assert bench_with(site, "exits").code == 5
    done = bench_with(
        site,
        *("run", "digits", "--backbone", "majority", "--limit", 4),
        *("--results", tmp_path / "results", "--json"),
        EVENTS=str(tmp_path / "events"),
    )
    assert done.code == 0 and "a listener that fails" in done.err
    assert len((tmp_path / "events").read_text().split()) == 4


def test_hooks_are_documented() -> None:
    from bench.contracts import hooks as hookspecs

    text = (ROOT / "CONTRIBUTING.md").read_text()
    hooks = [name for name, hook in vars(hookspecs).items() if hasattr(hook, "bench_spec")]
    assert hooks
    for name in hooks:
        assert f"`{name}(" in text and getattr(hookspecs, name).__doc__


def test_parameters_at_their_default_are_left_out() -> None:
    assert non_default_params("strategies", "full", {"draws": 500}) == {}
    assert non_default_params("strategies", "full", {"draws": 12}) == {"draws": 12}
    assert non_default_params("strategies", "unknown", {"draws": 500}) == {"draws": 500}
