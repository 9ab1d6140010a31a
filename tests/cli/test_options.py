"""Every setting is an option; a mistake gets one clear message."""

import re
from pathlib import Path

import click
import pytest
from helpers.command import bench, commands


def test_every_setting_is_an_option_in_one_section_of_the_help() -> None:
    from bench.running.parts.settings import RunConfig, chapters

    shown = [name for _, names in chapters() for name in names]
    assert len(shown) == len(set(shown)) and set(RunConfig.model_fields) - set(shown) == {"dataset"}
    text = bench("run", "--help-all").out
    assert all(f"\n{title}:\n" in text for title, _ in chapters()) and "None]" not in text
    assert all(f"--{name.replace('_', '-')}" in text for name in {*shown} - {"params"})


def test_help_is_short_and_says_where_the_rest_is() -> None:
    short = bench("run", "--help", COLUMNS="80").out
    whole = bench("run", "--help-all", COLUMNS="80").out
    assert "--backbone" in short and "--config" in short and "`bench run --help-all`" in short
    assert "--loss" not in short and "--loss" in whole and "--help-all`" not in whole
    more = int(re.findall(r"(\d+) more options", short)[0])
    assert whole.count("\n  -") == short.count("\n  -") + more
    assert 2 * len(short) < len(whole)


def test_precedence_option_variable_file_default(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('strategy = "full"\nlimit = 5\nseed = 3\n[params]\ndraws = 7\n')
    plan = bench("run", "digits", "--config", file, "--dry-run", "--json").json
    assert (plan["images"], plan["params"]["draws"]) == (5, 7)
    plan = bench("run", "digits", "--config", file, "--dry-run", "--json", BENCH_LIMIT="4").json
    assert plan["images"] == 4
    plan = bench(
        *("run", "digits", "--config", file, "--limit", 3, "--set", "draws=9"),
        *("--dry-run", "--json"),
        BENCH_LIMIT="4",
    ).json
    assert (plan["images"], plan["params"]["draws"]) == (3, 9)
    assert bench("run", "digits", "--dry-run", "--json").json["images"] == 360


@pytest.fixture(scope="module")
def sketched() -> None:
    """Replace nothing: what the backbone itself refuses is among the mistakes."""


ADAPTIVE = ["digits", "--strategy", "adaptive", "--set", "samples=5,50", "--set"]
USAGE_ERRORS = {
    "dataset": (["digit"], "'digits'"),
    "backbone": (["digits", "--backbone", "tiny-digit"], "'tiny-digits'"),
    "strategy": (["digits", "--strategy", "adaptve"], "'adaptive'"),
    "parameter": (["digits", "--strategy", "full", "--set", "draw=3"], "'draws'"),
    "value": (["digits", "--strategy", "full", "--set", "draws=many"], "500"),
    "assignment": (["digits", "--set", "draws"], "KEY=VALUE"),
    "loss": (["digits", "--loss", "l3"], "l2"),
    "split": (["digits", "--split", "dev"], "test, train"),
    "schedule end": ([*ADAPTIVE, "keep=3,2"], "keep"),
    "schedule stages": ([*ADAPTIVE, "keep=1"], "samples"),
    "folder": (["./no-such-folder"], "no-such-folder"),
    "no dataset": ([], "bench run digits"),
    "config": (["digits", "--config", "none.toml"], "none.toml"),
    "option": (["digits", "--sed", "3"], "--seed"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_a_mistake_gets_one_clear_message(case: str, tmp_path: Path) -> None:
    arguments, hint = USAGE_ERRORS[case]
    done = bench("run", *arguments, BENCH_RESULTS=str(tmp_path / "results"))
    assert done.refuses(hint), done.err
    assert not list(tmp_path.rglob("samples.jsonl"))


def test_an_option_has_no_effect_without_the_one_that_it_needs() -> None:
    refused = 0
    for words, command in commands():
        options = {name: parameter for parameter in command.params for name in parameter.opts}
        assert {*command.needs, *command.needs.values(), *command.apart} <= options.keys()
        required = [p for p in command.params if isinstance(p, click.Argument) and p.required]
        for option, needed in command.needs.items():
            value = [] if getattr(options[option], "is_flag", False) else ["1"]
            value = ["a=1"] if option == "--set" else value
            done = bench(*words, *["x"] * len(required), option, *value)
            assert done.refuses(option, needed), done.err
            refused += 1
    assert refused > 20


def test_commands_print_json_but_one_that_serves_and_one_that_prints_a_script() -> None:
    silent = {
        " ".join(words)
        for words, command in commands()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert silent == {"view", "completion"}
