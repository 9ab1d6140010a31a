"""A name is text in every output, whatever it is: terminal, HTML, Markdown, CSV, YAML, pictures."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.mutations import write_unsealed
from helpers.reporting import model_card
from helpers.runs import a_manifest, a_record, store

from bench.cli.output import say
from bench.cli.results import BEGIN, END
from bench.cli.results import render_page as render
from bench.reports import text
from bench.reports.figures.images import Images
from bench.reports.figures.run_pictures import draw_confusion
from bench.reports.html import to_html
from bench.reports.leaderboard.board import board_tables, make_boards
from bench.reports.leaderboard.ranking import leaderboard, rank_boards
from bench.reports.leaderboard.rows import REPORTED_FILE, LeaderboardRow, board_row, to_csv
from bench.reports.page.page import make_section
from bench.reports.page.page import render as render_page
from bench.reports.run_view import read_decided_run, read_view
from bench.reports.terminal.run import print_run
from bench.reports.terminal.tables import print_rows
from bench.store.formats.decisions import as_decisions
from bench.store.formats.fields import to_json
from bench.store.runs import read_run

NAMES = [
    "[bold]markup[/]",
    "[/closes-nothing]",
    ":smiley: code",
    "escape \x1b[31mcode",
    "escape \x9b31m of the C1 block",
    "two\nlines",
    "back\rto the start\x00",
    "half a pair \ud800",
    "\u202ebackwards",
    "<b onclick=alert(1)>element</b>",
    f"{END} <!-- comment",
    "a | pipe",
    "`code` and *stress* and _stress_ and [link](http://x)",
    "$mathematics_{",
    "=SUM(A1)",
    "&lt; an entity",
    "quotes \"' of both kinds",
    "\\ a backslash",
]
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]")


@pytest.fixture(params=NAMES, ids=ascii)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("results"), [0, 1, 2] * 4, [0, 1, 1] * 4)


def row(run: Path, name: str) -> LeaderboardRow:
    [found] = leaderboard(run.parent)
    named = {"dataset": name, "backbone": name, "params": {"order": name}, "source": name}
    return found.model_copy(update=named)


def renamed(path: Path, name: str) -> Path:
    """A stored run whose classes, backbone, training data and error messages have the name."""
    name = name.replace("\ud800", "\\ud800")  # what UTF-8 lacks is in no stored run
    config = {"dataset": name, "backbone": name, "weights": None, "data_dir": None, "split": None}
    backbone = {**a_manifest(["1"]).backbone.plain(), "name": name, "trained_on": name}
    run = store(path, [0, 1, 2], [1, 1, None], classes=[name, "b", "c"], config=config)
    for file in (run / "manifest.json", run / "summary.json"):
        document = json.loads(file.read_text("utf-8"))
        write_unsealed(file, {**document, "backbone": backbone})
    lines = (run / "samples.jsonl").read_text("utf-8")
    (run / "samples.jsonl").write_text(lines.replace('"broken"', json.dumps(name)), "utf-8")
    return run


def test_a_terminal_shows_it_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(["column", name], [["value", name]], title=name)
    say(f"Warning: {name}")
    shown = capsys.readouterr().out
    assert not UNSAFE.search(shown)
    for line in text.escape_message(name).splitlines():
        assert shown.count(line) >= 4


def test_a_run_is_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_run(read_view(renamed(tmp_path, name)))
    shown = capsys.readouterr().out
    assert not UNSAFE.search(shown) and "Results:" in shown


def test_a_markdown_board_stays_a_table(name: str, run: Path) -> None:
    written = text.to_markdown(board_tables([row(run, name)]))
    assert not UNSAFE.search(written) and "<" not in written
    _, _, above, _, *table, last, _, _ = written.splitlines()  # the end: what a rank is
    assert len(table) == 2 and len(written.splitlines()) == 9
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (*table, last)}) == 1
    for mark in "*`[":  # none that is not written as text
        assert not re.search(rf"(?<!\\)\{mark}", above + last)


@pytest.mark.filterwarnings("ignore:Left out")  # control characters in a source are refused
def test_the_readme_can_be_written_again(tmp_path: Path) -> None:
    published = tmp_path / "published"
    store(published, [0, 1], [0, 1])
    entry = {"dataset": "d", "split": "test", "backbone": "x", "strategy": "full", "accuracy": 0.5}
    sources = [f"a source: {name}".replace("\ud800", "") for name in NAMES]
    entries = [{**entry, "source": source} for source in sources]
    (published / REPORTED_FILE).write_text(to_json(entries))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    render(published, readme)
    once = readme.read_text()
    render(published, readme)
    assert readme.read_text() == once and once.count(END) == 1


def test_a_spreadsheet_reads_a_name_and_computes_nothing(name: str, run: Path) -> None:
    written = to_csv([row(run, name)])
    [read] = csv.DictReader(io.StringIO(written))
    assert read["backbone"].lstrip("'") == text.escape_hidden(name)
    assert not read["backbone"].startswith(("=", "+", "-", "@"))
    assert not UNSAFE.search(written) and len(written.splitlines()) == 2


def test_an_html_board_has_no_element_of_its_own(name: str, run: Path) -> None:
    written = to_html(board_tables([row(run, name)]), "Leaderboard")
    assert not UNSAFE.search(written) and "<b " not in written and "<!--" not in written


def test_a_model_card_is_yaml(name: str, tmp_path: Path) -> None:
    card = model_card(renamed(tmp_path, name), tmp_path / "card")
    assert not UNSAFE.search(card)
    [entry] = yaml.safe_load(card)["model-index"]
    assert entry["name"] == text.escape_hidden(name.replace("\ud800", "\\ud800"))


def test_the_report_shows_it(name: str, tmp_path: Path) -> None:
    found = read_decided_run(read_run(renamed(tmp_path, name)))
    pictures = 12 if "<b onclick" in name else 0  # to look for the data once is enough
    html = render_page(
        make_boards(rank_boards([board_row(found)])),
        [make_section(found, "run-1", Images({}), pictures)],
        [(name, name)],
    )
    html.encode()
    assert not UNSAFE.search(html) and "<b onclick" not in html and "<!--" not in html[200:]


def test_a_picture_is_drawn() -> None:
    records: list[Any] = [a_record(str(n), n, 1, n_classes=18) for n in range(len(NAMES))]
    described = a_manifest([record["sample_id"] for record in records])
    backbone = described.backbone.model_copy(update={"name": " ".join(NAMES)})
    described = described.model_copy(update={"backbone": backbone, "classes": NAMES})
    drawing = draw_confusion(as_decisions(records), described, None)
    assert len(drawing.png()) > 1000


def test_a_number_with_a_sign_is_a_number_in_a_spreadsheet() -> None:
    assert [text.escape_csv_cell(one) for one in ("-9.0", "+6.6", "-1e-05")] == [
        "-9.0",
        "+6.6",
        "-1e-05",
    ]
    for formula in ("-1+2", "+A1", "=1", "-9.0 to 1", "-"):
        assert text.escape_csv_cell(formula) == f"'{formula}"
