"""The report says what the runs hold, whole, safely, and whatever else lies in the folder."""

import base64
import gzip
import json
import os
import re
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.reporting import save_pictures, store_reported, store_run
from helpers.runs import store
from helpers.scores import store_ended
from helpers.studies import store_study

from bench.inputs.subsets import shuffle_samples
from bench.machine.files import write_atomically
from bench.reports.figures.plots import find_course
from bench.reports.page.page import write_report
from bench.reports.run_view import read_decided_run
from bench.store.folder import list_runs, read_manifest
from bench.store.runs import read_run

CLASSES = ["ant", "bee", "cat"]


class Page(HTMLParser):
    """A page as a browser reads it: its elements with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._raw = False
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += " " + " ".join(data.split())

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def tags(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def report(folder: Path, **changes: Any) -> Page:
    """Report all runs in a folder, in this process."""
    results = folder / "results"
    write_report(list_runs(results), folder / "page.html", results, **changes)
    return Page(folder / "page.html")


@pytest.fixture(scope="module")
def page(stored: Path) -> Page:
    return report(stored)


def test_the_page_asks_for_nothing_beyond_itself(page: Page) -> None:
    urls = [*page.attributes("src"), *page.attributes("href"), *page.attributes("xlink:href")]
    assert len(urls) > 30
    assert all(url.startswith(("data:", "#")) for url in urls), urls
    [policy] = [m["content"] for m in page.tags("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'; img-src data:")


def test_runs_beyond_the_first_are_packed_and_compared_all_the_same(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many runs, the decisions of the best are read again."""
    monkeypatch.setattr("bench.reports.page.page.MAX_OPEN", 1)
    monkeypatch.setattr("bench.reports.page.page.MOST_RUNS", 1)
    out = tmp_path / "page.html"
    write_report(list_runs(stored / "results"), out, most_images=0)
    page = out.read_text("utf-8")
    assert "images of both" in page
    [packed] = re.findall("Show 3 more runs.*<template>(.+)</template>", page)
    further = gzip.decompress(base64.b64decode(packed)).decode()
    runs = '<section class="run" aria-labelledby="(run-.)'
    assert re.findall(runs, page) == ["run-1"]
    assert re.findall(runs, further) == ["run-2", "run-3", "run-4"]


def test_ids_are_unique_and_references_lead_somewhere(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids)) > 20
    assert {url[1:] for url in page.attributes("href") if url.startswith("#")} <= set(ids)
    named = page.attributes("aria-labelledby")
    assert named and {i for value in named for i in value.split()} <= set(ids)
    clips = [c for v in page.attributes("clip-path") for c in re.findall(r"url\(#(.+?)\)", v)]
    assert clips and set(clips) <= set(ids)


def test_pictures_are_in_the_page_and_described(page: Page) -> None:
    pictures = page.tags("img")
    assert len(pictures) == 30 + 30 + 15 + 30
    for picture in pictures:
        assert picture["src"].startswith("data:image/webp;base64,")
        assert re.search(r"an image of (ant|bee|cat)$", picture["alt"])


def test_a_study_is_on_the_page_of_its_runs(tmp_path: Path) -> None:
    results = tmp_path / "results"
    runs = [
        store(results, [0, 1, 2] * 8, [0, 1, said] * 8, backbone=name)
        for name, said in (("poor", 0), ("good", 2))
    ]
    store_study(results, runs, "<b>small")
    (results / "studies" / "broken").mkdir()
    (results / "studies" / "broken" / "study.json").write_text("{")
    page = report(tmp_path, most_images=0)
    assert "Study <b>small" in page.text and "2 of 2 runs" in page.text
    assert "card forest" in [a.get("class") for a in page.tags("figure")]
    assert "broken" in page.text  # among what is left out
    tables = page.text.count("difference, points")
    store_study(results, runs, "the same again")
    again = report(tmp_path, most_images=0)
    assert again.text.count("difference, points") == tables
    assert again.text.count("The runs, and so the tables, are those of study ") == 1
    alone = store(tmp_path / "other" / "results", [0, 1], [0, 1])
    write_report([alone], tmp_path / "alone.html", results, most_images=0)
    assert "Study" not in Page(tmp_path / "alone.html").text


def test_what_users_wrote_stays_text(tmp_path: Path) -> None:
    bad = ["<img src=x onerror=alert(1)>", "<script>alert(2)<", "\"' onload='x"]
    data = save_pictures(tmp_path / "data", bad, 3)
    bad.sort()
    store_run(tmp_path / "results", "bad", data, bad, backbone="<b>bold</b>", gap=0.0)
    store_reported(tmp_path / "results", source="</script><u>a paper</u>")
    shown = report(tmp_path, notes=[("<i>nowhere<i>", "a <i>reason</i>")])
    assert not [tag for tag, _ in shown.elements if tag in ("u", "i")]
    assert not [a for _, a in shown.elements if "onerror" in a or "onload" in a]
    assert len(shown.tags("script")) == 1  # ours
    for text in (
        *bad,
        "<b>bold</b>",
        "</script><u>a paper</u>",
        "<i>nowhere<i>",
        "a <i>reason</i>",
    ):
        assert text in shown.text


def test_what_cannot_be_read_is_named_and_the_rest_reported(tmp_path: Path) -> None:
    data = save_pictures(tmp_path / "data", CLASSES, 4)
    results = tmp_path / "results"
    store_run(results, "good", data, CLASSES)
    (store_run(results, "no-manifest", data, CLASSES) / "manifest.json").write_text("{")
    odd = store_run(results, "no-labels", data, CLASSES) / "samples.jsonl"
    odd.write_text(re.sub(r'"label": \d, ', "", odd.read_text()))
    short = store_run(results, "few-classes", data, CLASSES) / "manifest.json"
    short.write_text(short.read_text().replace('"cat"\n', '"cat", 7\n').replace('"bee",', ""))
    (results / "reported.json").write_text('[{"dataset": "pictures"}]')
    (results / "empty").mkdir()
    empty = {"run_id": "empty", "identity": {}, "samples": []}
    (results / "empty" / "manifest.json").write_text(json.dumps(empty))
    store_run(results, "stopped", data, CLASSES, complete=False)
    out = tmp_path / "page.html"
    done = bench("report", "--results", results, "--out", out, "--images", 0, "--json")
    assert done.code == 0
    assert set(done.json["runs"]) >= {"good", "stopped"}
    left_out = {Path(entry["name"]).name for entry in done.json["left_out"]}
    assert left_out >= {"no-manifest", "no-labels", "empty", "reported.json"}
    page = Page(out)
    for name in left_out:
        assert name in page.text and name in done.err
    assert "incomplete" in page.text
    misspelt = bench("report", "goood", "good", "--results", results, "--out", out, "--images", 0)
    assert misspelt.code == 0 and "goood" in misspelt.err and "goood" in Page(out).text


def test_without_the_data_the_page_says_so(tmp_path: Path) -> None:
    data = save_pictures(tmp_path / "data", CLASSES, 4)
    store_run(tmp_path / "results", "run", data, CLASSES)
    moved = data.rename(tmp_path / "elsewhere")
    without = report(tmp_path)
    assert not without.tags("img")
    assert "does not exist" in without.text and "--data-dir" in without.text
    assert len(report(tmp_path, data_dirs={"": str(moved)}).tags("img")) == 12
    assert len(report(tmp_path, data_dirs={"pictures": str(moved)}).tags("img")) == 12
    bare = report(tmp_path, data_dirs={"": str(moved)}, most_images=0)
    assert not bare.tags("img") and "Pictures:" not in bare.text
    (moved / "cat" / "0.png").write_bytes(b"not a picture")
    assert len(report(tmp_path, data_dirs={"": str(moved)}).tags("img")) == 11
    other = save_pictures(tmp_path / "other", ["aaa", *CLASSES], 4)
    assert "labels differ" in report(tmp_path, data_dirs={"": str(other)}).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "nowhere/page.html"], "nowhere"),
        (["--out", "."], "--out"),
        (["--data-dir", "nowhere"], "--data-dir nowhere"),
        (["unknown-run"], "'unknown-run'"),
        (["--results", "nowhere"], "nowhere"),
        (["--images", "-1"], "--images"),
    ],
)
def test_what_cannot_work_is_said(
    stored: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = ["--results", stored / "results", "--out", tmp_path / "p.html", *arguments]
    done = bench("report", *given)
    assert done.refuses(message)
    assert list(tmp_path.iterdir()) == []


def test_only_a_regular_file_is_replaced(stored: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket"))
    for special in (tmp_path / "socket", tmp_path / "pipe"):
        done = bench("report", "--results", stored / "results", "--out", special)
        assert done.refuses("--out")
        with refused("regular file", kind=OSError):
            write_atomically(special, "text")
    assert (tmp_path / "socket").is_socket() and (tmp_path / "pipe").is_fifo()
    (tmp_path / "page.html").write_text("earlier")
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    link = tmp_path / "link.html"
    done = bench("report", "zero", "--results", stored / "results", "--out", link, "--images", 0)
    assert done.code == 0 and link.is_symlink() and "link.html (replaced): 1 run" in done.out
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_the_course_of_a_question_is_drawn(tmp_path: Path) -> None:
    labels = [i % 3 for i in range(60)]
    predictions = [y if i % 5 else (y + 1) % 3 for i, y in enumerate(labels)]
    path, answer = store_ended(tmp_path / "results", labels, predictions, backbone="ended")
    course = find_course(read_decided_run(read_run(path)))
    assert course and course.what == "difference of accuracies" and course.bounds == (0.0,)
    assert course.ends[-1, 0] == answer.n and tuple(course.ends[-1, 1:]) == pytest.approx(
        answer.difference_anytime_ci95
    )
    assert (np.diff(course.ends[:, 0]) > 0).all() and (course.ends[:-1, 1] < 0).all()
    page = report(tmp_path)
    assert "The question that was to end the run" in page.text and "stopped at" in page.text
    labelled = [svg["aria-label"] for svg in page.tags("svg")]
    assert "The 95 % interval of the difference of accuracies by images." in labelled
    low, high = (f"{100 * end:.1f}" for end in answer.interval)
    assert page.text.count(f"{low}–{high}") == 3, (
        "in the answer, on the board and in the run's section"
    )
    shutil.rmtree(tmp_path / "results" / answer.question.split()[-1])
    alone = find_course(read_decided_run(read_run(path)))
    assert alone and alone.what == "accuracy"
    assert tuple(alone.ends[-1, 1:]) == pytest.approx(answer.anytime_ci95)
    known = read_manifest(path)
    first = shuffle_samples(known.samples, known.identity.dataset.fingerprint)[0]
    journal = path / "samples.jsonl"
    lines = [line for line in journal.read_text().splitlines() if f'"{first}"' not in line]
    journal.write_text("".join(f"{line}\n" for line in lines))
    assert find_course(read_decided_run(read_run(path))) is None  # nothing is known in random order
