"""The pages of `bench view`, asked over HTTP and without a browser."""

import http.client
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from html import unescape
from math import inf
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Event, Thread
from urllib.parse import parse_qsl, quote

import pytest
from helpers.command import PATIENCE, bench
from helpers.refusals import refused
from helpers.reporting import save_pictures, store_run
from helpers.runs import store
from helpers.studies import store_study

from bench.reports.figures.images import Images
from bench.store.folder import read_manifest
from bench.store.writing import RunFolder
from bench.view.pages import Pages
from bench.view.server import ADDRESS, Server
from bench.view.stored import Stored

CLASSES = ["<b>ant", "bee", "cat"]


@dataclass
class Reply:
    """What came back."""

    code: int
    text: str
    headers: dict[str, str]


@dataclass
class Site:
    """A server under way."""

    server: Server
    results: Path

    def ask(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """Ask for a page."""
        connection = http.client.HTTPConnection(ADDRESS, self.server.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in named)
        for name, value in named.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        found = Reply(answer.status, answer.read().decode(errors="replace"), dict(answer.headers))
        connection.close()
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("view")
    data = save_pictures(folder / "data", CLASSES, 6)
    results = folder / "results"
    store_run(results, "zero", data, CLASSES, errors=True)
    store_run(results, "trained", data, CLASSES, gap=0.2, draws=3, trained_on="pictures/train")
    store(results / "deep", [0, 1, 2] * 50, [0, 1, 0] * 50, dataset="other")
    (results / "broken").mkdir()
    (results / "broken" / "manifest.json").write_text("{")
    (folder / "secret.txt").write_text("secret")
    server = Server(Pages(Stored(results, {})), 0)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Site(server, results)
    server.shutdown()
    server.server_close()


def runs_on(page: str) -> list[str]:
    """Return the runs that a page lists, in their order."""
    return re.findall(r'<a class="path" href="/run\?run=[^"]*">([^<]*)</a>', page)


def test_every_run_is_listed_sorted_and_found(site: Site) -> None:
    page = site.ask("/").text
    deep = next(path.name for path in (site.results / "deep").iterdir())
    assert sorted(runs_on(page)) == sorted(["zero", "trained", "broken", deep])
    up = runs_on(site.ask("/?sort=accuracy&order=up").text)
    down = runs_on(site.ask("/?sort=accuracy&order=down").text)
    assert up[:3] == down[2::-1] and up[3] == down[3] == "broken"  # what is not known is last
    assert runs_on(site.ask("/?find=other+full").text) == [deep]
    assert runs_on(site.ask("/?status=unreadable").text) == ["broken"]
    assert "bench run" in page and "--strategy full" in page  # the command that makes it again


def test_a_page_shows_a_run(site: Site) -> None:
    page = site.ask("/run?run=zero").text
    assert "Confusion matrix" in page and "Error by timestep" in page and "<svg" in page
    assert "&lt;b&gt;ant" in page and "<b>ant" not in page
    names = re.findall(r'<img src="(/picture[^"]*)"', page)
    assert names and site.ask("/run?run=broken").code == 200
    picture = site.ask(unescape(names[0]))
    assert picture.headers["Content-Type"] == "image/webp" and picture.text.startswith("RIFF")


def test_images_are_filtered_and_come_in_pages(site: Site) -> None:
    deep = f"deep/{next((site.results / 'deep').iterdir()).name}"
    where = f"/run?run={quote(deep, safe='')}"
    assert ">50 of 150 images" in site.ask(where).text  # the mistakes
    assert ">100 of 150 images" in site.ask(f"{where}&show=right").text
    assert ">0 of 150 images" in site.ask(f"{where}&show=failed").text
    assert ">50 of 150 images" in site.ask(f"{where}&show=all&true=class+1").text
    assert ">0 of 150 images" in site.ask(f"{where}&show=all&true=nothing").text
    everything = f"{where}&show=all&sort=order"
    first, last = site.ask(everything).text, site.ask(f"{everything}&page=3").text
    assert 'title="s0000"' in first and 'title="s0060"' not in first
    assert last.count('<li class="is-') == 30 and 'title="s0149"' in last
    assert site.ask(f"{everything}&page=99").text == last


def test_run_against_run_shows_the_images_that_changed(site: Site) -> None:
    page = site.ask("/compare?a=zero&b=trained").text
    found = bench("compare", site.results / "zero", site.results / "trained", "--json").json
    assert f"{100 * found['difference']['estimate']:+.1f} (" in page
    wins = site.ask("/compare?a=zero&b=trained&show=wins").text
    assert f"<output>{found['wins']} images</output>" in wins
    assert wins.count("B: ✓") == wins.count("A: ✗") == found["wins"] > 0
    deep = f"deep/{next((site.results / 'deep').iterdir()).name}"
    ended = site.ask(f"/compare?a=zero&b={quote(deep, safe='')}")
    assert ended.code == 404 and "the dataset differs" in ended.text


def test_a_run_that_is_being_made_is_running(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1, 2, 0], [0, 1, 2, 1], complete=False)
    pages = Pages(Stored(tmp_path, {}))

    def states() -> tuple[bool, ...]:
        shown = [pages.answer("/", {"status": s}).content for s in ("running", "incomplete")]
        listed = bench("runs", "--results", tmp_path)
        page = pages.answer("/run", {"run": path.name, "live": "1"}).content.decode()
        return (
            path.name.encode() in shown[0],
            path.name.encode() in shown[1],
            "so far, running" in listed.out,
            "<dd>running</dd>" in page,
        )

    assert states() == (False, True, False, False)
    with RunFolder(path, read_manifest(path)):
        assert states() == (True, True, True, True)
    assert states() == (False, True, False, False)  # as after a kill: the file of the lock is there


def test_a_page_shows_the_figures_of_one_state(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1, 2, 0], [0, 1, 2, 1])
    lines = (path / "samples.jsonl").read_bytes().splitlines(keepends=True)
    whole = (path / "summary.json").read_bytes()
    (path / "summary.json").unlink()
    (path / "samples.jsonl").write_bytes(b"".join(lines[:2]))
    stored = Stored(tmp_path, {})
    pages, query = Pages(stored), {"run": path.name}
    begun = pages.answer("/run", {**query}).content.decode()
    assert 'data-figures="incomplete"' in begun and "75.0" not in begun
    (path / "samples.jsonl").write_bytes(b"".join(lines))
    (path / "summary.json").write_bytes(whole)
    stored._lines[path].read_again_from = inf  # as for a growing run
    page = pages.answer("/run", {**query}).content.decode()
    assert 'data-figures="complete"' in page and "<dd>complete</dd>" in page
    assert '<dd>75.0 <span class="whole">(' in page and "34.2" not in page
    assert "<dd>complete</dd>" in pages.answer("/run", {**query, "live": "1"}).content.decode()


def test_an_audit_that_was_made_since_is_shown(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1, 2], [0, 1, 2], {"evaluations": 6}, scoring={"loss": "l2"})
    pages, words = Pages(Stored(tmp_path, {})), "3 are decided as by the full sweep"
    assert words not in pages.answer("/run", {"run": path.name}).content.decode()
    cost = {"evaluations": 15, "equivalents": 15.0, "seconds": 0.5}
    for number in range(3):
        line = {"sample_id": f"s{number:04d}", "prediction": number, "regret": 0.0, **cost}
        with (path / "audit.jsonl").open("a") as file:
            file.write(f"{json.dumps(line)}\n")
    page = pages.answer("/run", {"run": path.name}).content.decode()
    assert words in page and "3 of 3 as the full sweep, ≥ 100 %" in page


def test_a_study_is_listed_and_shown(tmp_path: Path) -> None:
    results = tmp_path / "r"
    made = [
        store(results, [0, 1, 2] * 8, [0, 1, said] * 8, backbone=name)
        for name, said in (("poor", 0), ("good", 2))
    ]
    store_study(results, made)
    pages = Pages(Stored(results, {}))
    listed = pages.answer("/", {}).content.decode()
    assert 'href="/study?study=small">small</a>' in listed and "2 of 2" in listed
    page = pages.answer("/study", {"study": "small"}).content.decode()
    assert "good" in page and 'class="card forest"><svg' in page and "<th scope=" in page
    part = pages.answer("/study", {"study": "small", "live": "1"}).content.decode()
    assert "<html" not in part and part.strip() in page
    (results / "studies" / "small" / "study.json").write_text("{")
    assert "study.json" in pages.answer("/", {}).content.decode()
    assert pages.answer("/study", {"study": "../small"}).code == 404


def test_an_unchanged_page_is_not_sent_again(site: Site) -> None:
    first = site.ask("/?live=1")
    assert "<html" not in first.text and "zero" in first.text
    again = site.ask("/?live=1", If_None_Match=first.headers["ETag"])
    assert again.code == 304 and again.text == ""


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
        "/view.css/../../secret.txt",
        "/run?run=../secret.txt",
        "/run?run=..%2F",
        "/run?run=/etc",
        "/run?run=%00",
        "/picture?run=zero&sample=../../secret.txt",
        "/picture?run=zero&sample=/etc/passwd",
        "/compare?a=zero&b=../zero",
        "/run?run=%ff%fe",
        "/?" + "&".join(f"a{i}=1" for i in range(100)),
    ],
)
def test_nothing_outside_is_read(site: Site, path: str) -> None:
    reply = site.ask(path)
    assert reply.code in (400, 404)
    assert "secret\n" not in reply.text and "root:" not in reply.text


def test_only_this_machine_and_these_pages_may_read(site: Site) -> None:
    port = site.server.port
    assert site.server.server_address[0] == "127.0.0.1"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", ""):
        assert site.ask("/", Host=host).code == 421
    assert site.ask("/", Host=f"localhost:{port}").code == 200
    assert site.ask("/", Sec_Fetch_Site="cross-site").code == 403
    policy = site.ask("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "<script>" not in site.ask("/run?run=zero").text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_written(site: Site, method: str) -> None:
    assert site.ask("/run?run=zero", method).code == 501


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    path = store(tmp_path / "r", [0, 1, 2], [0, 1, 1])
    odd = os.fsdecode(os.fsencode(tmp_path / "r") + b"/\xff <i>&\n?")
    path.rename(odd)
    pages = Pages(Stored(tmp_path / "r", {}))
    page = pages.answer("/", {}).content.decode()
    (link,) = re.findall(r'<a class="path" href="/run\?([^"]*)">', page)
    query = dict(parse_qsl(unescape(link), errors="surrogateescape"))
    assert query["run"] == Path(odd).name
    shown = pages.answer("/run", query)
    assert shown.code == 200 and b"<i>&" not in shown.content


def test_a_picture_is_waited_for_by_nobody_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = Event(), Event()

    def waiting(*_: object) -> dict[str, object]:
        asked.set()
        assert answered.wait(PATIENCE)
        return {}

    monkeypatch.setattr(Images, "of", waiting)
    picture = Thread(target=site.ask, args=("/picture?run=zero&sample=x",), daemon=True)
    picture.start()
    assert asked.wait(PATIENCE)
    assert site.ask("/").code == site.ask("/run?run=zero").code == 200 and picture.is_alive()
    answered.set()
    picture.join(PATIENCE)
    assert not picture.is_alive()


@pytest.mark.long
def test_silent_connections_keep_nobody_out(tmp_path: Path) -> None:
    """With 256 descriptors, as some systems have, 300 connections that never ask for anything."""
    store(tmp_path, [0, 1], [0, 1])
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from bench.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "view", "--results", str(tmp_path), "--port", "0"]
    with Popen(command, stdout=PIPE, text=True) as process, ExitStack() as silent:
        assert process.stdout is not None
        try:
            (port,) = re.findall(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            for number in range(300):
                connection = socket.create_connection((ADDRESS, int(port)), timeout=PATIENCE)
                silent.enter_context(connection)
                if number % 2:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost:")
            asking = http.client.HTTPConnection(ADDRESS, int(port), timeout=30)
            asking.request("GET", "/")
            page = asking.getresponse()
            assert page.status == 200 and b"d-b-full" in page.read()
        finally:
            process.kill()


def test_a_port_in_use_is_named(site: Site, tmp_path: Path) -> None:
    with refused(site.server.port):
        Server(site.server.pages, site.server.port)
    ended = bench("view", "--results", site.results, "--port", site.server.port)
    assert ended.refuses("--port")
    absent = bench("view", "--results", tmp_path / "nothing")
    assert absent.refuses("folder")
