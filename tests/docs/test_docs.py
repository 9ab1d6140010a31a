"""Documents name files, links, commands, options and settings that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from helpers.blocks import Typed, commands, run, same, steps, unknown
from helpers.command import bench
from helpers.pages import hook
from helpers.places import ROOT

from bench.cli.main import OPTION_ELSEWHERE, cli
from bench.discovery.loading import load_plugins

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "bench/cli/glossary.md",
        *ROOT.glob("d*/**/*.md"),
        *ROOT.glob("results/*.md"),
        *ROOT.glob("studies/*/*.md"),
        *ROOT.glob(".github/*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_toolkit_that_are_named_are_there(page: Path) -> None:
    named = r"`((?:bench|plugins|tests|benchmarks)/[\w./]*)`((?:, `\w+\.py`)*)"
    for path, beside in re.findall(named, page.read_text("utf-8")):
        files = [
            ROOT / path,
            *((ROOT / path).parent / name for name in re.findall(r"\w+\.py", beside)),
        ]
        assert not [str(file) for file in files if not file.exists()]


def test_every_command_is_on_the_page_of_commands() -> None:
    from bench.discovery.commands import own_commands

    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert bench("--help").code == 0
    for name in own_commands():
        assert f"`bench {name}" in page


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


SHOWN = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("design/*.md"),
        ROOT / "results/README.md",
    ]
)
SESSIONS = [
    page
    for page in SHOWN
    if any(isinstance(step, Typed) for step in steps(page.read_text("utf-8")))
]
COMMANDS = [page for page in SHOWN if commands(page)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", COMMANDS, ids=name)
def test_the_program_knows_every_command_and_option(page: Path) -> None:
    for arguments in commands(page):
        assert not unknown(arguments), arguments


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS, ids=name)
def test_sessions_print_what_they_show(page: Path, tmp_path: Path) -> None:
    for step in steps(page.read_text("utf-8")):
        if isinstance(step, Typed):
            done = run(step, tmp_path)
            plan = "--dry-run" in step.command  # ends with 2 where data or weights are missing
            allowed = (0, 2) if plan else (0,)
            assert done.code in allowed, f"$ {step.command}\n{done.out}{done.err}"
            assert same(step.printed, done.out), f"$ {step.command}\n{done.out}"
        else:
            (tmp_path / step.name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / step.name).write_text(step.text, "utf-8")


ENTRY = 'summary = "wheat | rye <b>"\nadds = ["datasets"]\naddress = "https://example.org/a"\n'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f'[plugins.bench-a]\n{ENTRY}tested = "0.1.0"', "| [bench-a](https://example.org/a) |"),
        ("[plugins]", "None"),
        (f"[plugins.bench-a]\n{ENTRY}", None),
        (f'[plugins."a](b)"]\n{ENTRY}tested = "0.1.0"', None),
        (f'[plugins.a]\n{ENTRY.replace("https", "javascript")}tested = "0.1.0"', None),
    ],
)
def test_the_index_of_plugins_shows_entries_as_text(
    text: str, shown: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "plugins.toml"
    file.write_text(text)
    if shown is None:
        with pytest.raises(ValueError, match=r"expected|https"):
            hook("third_parties").plugins(file)
    else:
        table = hook("third_parties").plugins(file)
        assert shown in table and "<b>" not in table and "t | r" not in table


def test_the_index_of_plugins_is_valid() -> None:
    assert hook("third_parties").plugins()
