"""Plugins that misbehave while they are found, loaded and told of events: they harm nobody else."""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import click
import pytest
from helpers.command import bench_process
from helpers.plugins import install, load_hooks
from helpers.refusals import refused

from bench.contracts.hooks import hookimpl
from bench.discovery.finding import Plugin, find_plugins
from bench.discovery.guard import notify_plugins
from bench.discovery.loading import Plugins
from bench.errors import BenchWarning, UserError

Register = Callable[..., None]
MINE: dict[str, Any] = {"target": "nowhere:Mine"}


@pytest.fixture(scope="module")
def own() -> list[Plugin]:
    """The toolkit's own plugins, looked for once among all that is installed."""
    return [plugin for plugin in find_plugins() if plugin.builtin]


def anew(own: list[Plugin]) -> Plugins:
    plugins = Plugins()
    for plugin in own:
        plugins.load(replace(plugin))
    return plugins


@pytest.fixture
def plugins(own: list[Plugin]) -> Plugins:
    """The toolkit's own plugins, loaded anew."""
    return anew(own)


@pytest.fixture(scope="module")
def unharmed(own: list[Plugin]) -> Plugins:
    """The same, for plugins that fail: none leaves anything behind."""
    return anew(own)


def test_what_a_hook_raises_is_the_plugins_failure(plugins: Plugins) -> None:
    def register_datasets(register: Register) -> None:
        register("mine", **MINE)
        sys.exit(0)

    plugin = load_hooks(plugins, "broken", register_datasets)
    assert plugin.error and plugin.error.startswith("register_datasets() ")
    assert "digits" in plugins.datasets
    with refused("'broken'", "register_datasets"):
        plugins.datasets.get("mine")


DATASET: dict[str, list[object]] = {
    "classes": [5, "ab", ("a", 1), {"a": 1}],
    "phrases": [3, {"a": 1}],
    "template": [None, b"a {class}"],
    "splits": [3, {"test": "many"}, {"test": True}, {"test": -5}],
    "split": [0],
    "backbone": [0],
    "summary": [None, 3],
    "version": ["1", True, 1.5],
    "extra": [3],
    "parameters": [3, {1: 2}],
    "homepage": [None],
    "target": [3, "nowhere", "a b:C"],
}
BACKBONE: dict[str, list[object]] = {
    "weights": [7],
    "scorer": ["oracle", None, ["denoiser"]],
    "trained_on": [1],
    "strategy_parameters": [3],
    "plan": [None],
    "flops": ["many", -1, 0, float("nan"), float("inf")],
    "default": [1, "yes"],
}
FIELDS = [
    pytest.param(kind, name, value, id=f"{kind} {name}={value!r}")
    for kind, fields in (("datasets", DATASET), ("backbones", BACKBONE))
    for name, values in fields.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), FIELDS)
def test_a_field_of_the_wrong_type_is_named(
    kind: str, name: str, value: object, unharmed: Plugins
) -> None:
    def hook(register: Register) -> None:
        register("mine", **{**MINE, name: value})

    hook.__name__ = f"register_{kind}"
    plugin = load_hooks(unharmed, "broken", hook)
    assert plugin.error and f"register_{kind}() raised ValueError: " in plugin.error
    assert name in plugin.error and "mine" not in getattr(unharmed, kind).by_name()


def test_a_hook_without_its_decorator_is_no_hook_that_is_passed_over(unharmed: Plugins) -> None:
    module = ModuleType("undecorated")
    exec("def run_finished(summary): ...", vars(module))
    with mock.patch.dict(sys.modules, {"undecorated": module}):
        plugin = Plugin("mine", "mine", "1.0", "undecorated")
        unharmed.load(plugin)
    assert plugin.error == "its run_finished() needs the decorator @hookimpl of bench"


@pytest.mark.parametrize("name", ["My Data", "", None, 3, "a\nb", "[/x]", "x" * 5 + "é"])
def test_a_name_that_is_none(name: Any, plugins: Plugins) -> None:
    def register_strategies(register: Register) -> None:
        register(name, **MINE)

    assert "strategy " in str(load_hooks(plugins, "broken", register_strategies).error)


def test_a_builtin_name_stays_the_toolkits(plugins: Plugins) -> None:
    def register_datasets(register: Register) -> None:
        register("digits", **MINE)

    before = plugins.datasets.get("digits")
    plugin = load_hooks(plugins, "greedy", register_datasets)
    assert plugin.error == "The dataset name 'digits' is reserved for the toolkit."
    assert plugins.datasets.get("digits") is before


def test_there_is_one_default(plugins: Plugins) -> None:
    def register_backbones(register: Register) -> None:
        register("mine", default=True, **MINE)

    def register_strategies(register: Register) -> None:
        register("one", default=True, **MINE)
        register("two", default=True, **MINE)

    error = load_hooks(plugins, "greedy", register_backbones).error
    assert error and "'mine'" in error and "'tiny-digits' of diffusion-classifier-bench" in error
    error = load_hooks(plugins, "greedier", register_strategies).error
    assert error and "'one'" in error and "'two'" in error
    default = plugins.backbones.default()
    assert default and default.name == "tiny-digits" and "mine" not in plugins.backbones


def test_a_command_must_be_one_and_leaves_the_toolkits_alone(plugins: Plugins) -> None:
    def register_commands(cli: click.Group) -> None:
        cli.add_command(click.Command("run"))

    assert "'run' is reserved for the toolkit" in str(
        load_hooks(plugins, "a", register_commands).error
    )

    def not_a_command(cli: click.Group) -> None:
        cli.commands["mine"] = 5  # type: ignore[assignment]  # what is refused

    not_a_command.__name__ = "register_commands"
    assert "register_commands()" in str(load_hooks(plugins, "b", not_a_command).error)
    assert not plugins.commands.keys() & {"run", "mine"}

    def of_two(cli: click.Group) -> None:
        cli.add_command(click.Command("greet"))

    of_two.__name__ = "register_commands"
    assert load_hooks(plugins, "c", of_two).error is None
    first = plugins.commands["greet"]
    assert "'greet' is already added" in str(load_hooks(plugins, "d", of_two).error)
    assert plugins.commands["greet"] is first
    assert "c" in plugins.versions() and "d" not in plugins.versions()


EVENTS: dict[str, dict[str, Any]] = {
    "run_started": {
        "manifest": {"run_id": "x", "config": {}, "samples": ["a", "b"]},
        "done": 0,
        "total": 2,
        "correct": 0,
    },
    "sample_scored": {"record": {"sample_id": "a", "top": [[0, 0.1, 5]]}},
    "run_finished": {"summary": {"metrics": {"accuracy": 0.5}}},
}


@pytest.fixture
def heard(plugins: Plugins) -> list[tuple[str, Any]]:
    """What the listeners before and after the bad one hear."""
    heard: list[tuple[str, Any]] = []

    class Listener:
        @hookimpl
        def run_started(self, manifest: Any, total: int) -> None:  # fewer arguments than offered
            heard.append(("run_started", manifest))

        @hookimpl
        def sample_scored(self, record: Any) -> None:
            heard.append(("sample_scored", record))

        @hookimpl
        def run_finished(self, summary: Any) -> None:
            heard.append(("run_finished", summary))

    plugins.manager.register(Listener())
    return heard


def exits(**_: Any) -> None:
    sys.exit(0)


def clears(**facts: Any) -> None:
    for value in facts.values():
        if isinstance(value, dict):
            for inner in value.values():
                if isinstance(inner, dict | list):
                    inner.clear()
            value.clear()


def fails(**_: Any) -> None:
    raise LookupError("no such thing")


def complains(**_: Any) -> None:
    raise UserError("you can fix this")


@pytest.mark.parametrize("act", [exits, clears, fails, complains])
@pytest.mark.parametrize("event", EVENTS)
def test_a_listener_harms_neither_the_run_nor_the_others(
    event: str, act: Callable[..., Any], plugins: Plugins, heard: list[tuple[str, Any]]
) -> None:
    facts = EVENTS[event]
    argument = next(iter(facts))
    scope: dict[str, Any] = {"act": act}
    exec(f"def {event}({argument}): act({argument}={argument})", scope)
    assert load_hooks(plugins, "bad", scope[event]).error is None

    before = json.dumps(facts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notify_plugins(plugins.manager, event, **facts)
    assert json.dumps(facts) == before
    assert heard == [(event, facts[argument])]
    said = [str(w.message) for w in caught if issubclass(w.category, BenchWarning)]
    assert len(said) == (act is not clears)
    assert all(f"plugin 'bad' of bad: {event}()" in text for text in said)


SITE = {
    "import-exit": "import sys; sys.exit(0)",
    "import-interrupt": "raise KeyboardInterrupt",
    "import-prints": (
        "import os, atexit\nprint('noise')\nos.system('echo from C')\natexit.register(print, 'bye')"
    ),
    "hook-exits": (
        "from bench import hookimpl\n"
        "@hookimpl\ndef register_commands(cli):\n    raise SystemExit(7)"
    ),
}


def test_installed_plugins_that_misbehave(tmp_path: Path) -> None:
    """All of them in one environment, beside distributions whose files cannot be read."""
    site = tmp_path / "site"
    site.mkdir()
    for name, source in SITE.items():
        install(site, name, source)
    twice = install(site, "two-points", "")
    (twice / "entry_points.txt").write_text("[bench]\none = two_points\ntwo = two_points\n")
    (install(site, "latin", "") / "METADATA").write_bytes(b"Name: caf\xe9\nVersion: 1\n")
    (install(site, "bad-points", "") / "entry_points.txt").write_text("[bench]\nno value\n")
    (install(site, "odd-point", "") / "entry_points.txt").write_text("[bench]\nodd = a b c\n")
    (install(site, "others", "") / "entry_points.txt").write_text("[other]\nno value\n")
    done = bench_process("plugins", "--json", PYTHONPATH=str(site), BENCH_LOAD_PLUGINS=None)
    assert done.code == 0, done.err
    errors = {(row["distribution"], row["name"]): row["error"] for row in done.json}
    wanted = {
        ("import-exit", "import-exit"): "tried to end the program (exit code 0)",
        ("import-interrupt", "import-interrupt"): "raised KeyboardInterrupt",
        ("hook-exits", "hook-exits"): "register_commands() tried to end the program (exit code 7)",
        ("two-points", "two"): "already belongs to plugin 'one' of two-points",
        ("latin-1.0", "latin"): "its METADATA cannot be read",
        ("bad-points", "bad-points"): "its entry points cannot be read",
        ("odd-point", "odd"): "importing a b c raised",
    }
    for key, reason in wanted.items():
        assert reason in errors[key], errors[key]
    assert errors["import-prints", "import-prints"] is errors["two-points", "one"] is None
    assert not any("others" in name for name, _ in errors)
    assert "noise" in done.err and "from C" in done.err and "bye" in done.err
