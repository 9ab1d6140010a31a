"""Results attached to an issue: the steps of the workflow on archives, hostile ones too."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest
import yaml
from helpers.places import ROOT

from tools import submission

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "submission.yml").read_text("utf-8"))
RUN = "digits-majority-full-fd2d28ec"
PUBLISHED = ROOT / "results" / "published"
Make = Callable[[ZipFile], None]


def files_of(run: str) -> dict[str, bytes]:
    return {f"{run}/{file.name}": file.read_bytes() for file in (PUBLISHED / run).iterdir()}


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with ZipFile(path, "w", ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def step(job: str, name: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the workflow in a folder that has the tools, as GitHub does."""
    [script] = [s["run"] for s in WORKFLOW["jobs"][job]["steps"] if s.get("name") == name]
    env = {
        **os.environ,
        "PUBLISHED": "published",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **variables,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout with one published run."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "submission.py", tmp_path / "tools")
    other = "digits-random-full-3bae6f72"
    shutil.copytree(PUBLISHED / other, tmp_path / "published" / other)
    return tmp_path


def test_an_archive_becomes_the_files_of_a_pull_request(place: Path) -> None:
    archive(place / "submission.zip", files_of(RUN))
    checked = step("check", "Unpack, add and validate", place)
    assert checked.returncode == 0, checked.stderr
    shutil.rmtree(place / "published" / RUN)  # the second job has a checkout of its own
    accepted = step("propose", "Take the validated files", place, VALIDATED="validated")
    assert accepted.returncode == 0, accepted.stderr
    for name, content in files_of(RUN).items():
        assert (place / "published" / name).read_bytes() == content


@pytest.mark.long
def test_results_of_a_paper_are_submitted_alike(place: Path) -> None:
    entry = {"dataset": "digits", "split": "test", "backbone": "b", "strategy": "s"}
    reported = {**entry, "accuracy": 0.9, "source": "a paper, table 1", "seen": "first hand"}
    archive(place / "submission.zip", {"reported.json": json.dumps(reported).encode()})
    checked = step("check", "Unpack, add and validate", place)
    assert checked.returncode == 0, checked.stderr
    assert json.loads((place / "validated" / "reported.json").read_text("utf-8")) == [reported]


@pytest.mark.long
def test_a_figure_that_was_improved_is_refused(place: Path) -> None:
    files = files_of(RUN)
    manifest = json.loads(files[f"{RUN}/manifest.json"])
    manifest["backbone"]["name"] = "linear-probe"
    files[f"{RUN}/manifest.json"] = json.dumps(manifest).encode()
    archive(place / "submission.zip", files)
    checked = step("check", "Unpack, add and validate", place)
    assert checked.returncode != 0 and "by its identity" in checked.stderr
    assert not (place / "validated").exists() and not (place / "published" / RUN).exists()


def special(kind: int, content: bytes = b"canary") -> Make:
    def write(packed: ZipFile) -> None:
        entry = ZipInfo(f"{RUN}/manifest.json")
        entry.external_attr = (kind | 0o777) << 16
        packed.writestr(entry, content)

    return write


def named(*names: str, size: int = 2) -> Make:
    def write(packed: ZipFile) -> None:
        for name in names:
            packed.writestr(name, b"{" + b" " * (size - 2) + b"}")

    return write


HOSTILE: dict[str, tuple[Make, str]] = {
    "nothing": (named(), "no file"),
    "a way out": (named(f"{RUN}/../../manifest.json"), "belong"),
    "an absolute path": (named(f"/{RUN}/manifest.json"), "belong"),
    "another system's separators": (named(f"{RUN}\\manifest.json"), "belong"),
    "code": (named(f"{RUN}/setup.py"), "belong"),
    "a workflow": (named(".github/workflows/tests.yml"), "belong"),
    "a folder of another name": (named("digits/manifest.json"), "belong"),
    "an option": (named("--into-00000000/manifest.json"), "belong"),
    "a name with a line break": (named(f"{RUN}\n/manifest.json"), "belong"),
    "a deeper folder": (named(f"{RUN}/{RUN}/manifest.json"), "belong"),
    "a file twice": (named(*[f"{RUN}/manifest.json"] * 2), "twice"),
    "a link": (special(stat.S_IFLNK), "link"),
    "a pipe": (special(stat.S_IFIFO), "link"),
    "a bomb": (named(f"{RUN}/samples.jsonl", size=3_000_000), "2,000,000"),
    "thousands of files": (named(*(f"a-{n:08x}/manifest.json" for n in range(2000))), "2,000"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives_are_refused_and_leave_nothing(kind: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[kind]
    file = tmp_path / "submission.zip"
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        make(packed)
    with pytest.raises(submission.RefusedError, match=reason):
        submission.unpack(file, tmp_path / "unpacked")
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:40] + bytes(9) + b[49:]]
)
def test_damaged_archives_are_refused(damage: Any, tmp_path: Path) -> None:
    file = archive(tmp_path / "submission.zip", files_of(RUN))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(submission.RefusedError):
        submission.unpack(file, tmp_path / "unpacked")
    assert [*tmp_path.iterdir()] == [file]


def test_the_second_job_takes_json_alone(tmp_path: Path) -> None:
    validated, published = tmp_path / "validated", tmp_path / "published"
    published.mkdir()
    makers: dict[str, Callable[[Path], Any]] = {
        f"{RUN}/manifest.json": lambda file: file.write_text("no JSON"),
        f"{RUN}/summary.json": lambda file: file.write_text("[" * 200_000),
        f"{RUN}/samples.jsonl": lambda file: file.symlink_to(tmp_path / "elsewhere"),
        f"{RUN}/audit.jsonl": os.mkfifo,
        "README.md": lambda file: file.write_text("{}"),
    }
    for name, make in makers.items():
        (validated / RUN).mkdir(parents=True)
        make(validated / name)
        with pytest.raises(submission.RefusedError):
            submission.accept(validated, published)
        assert not [*published.iterdir()]
        shutil.rmtree(validated)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("see [a.zip](https://github.com/user-attachments/files/12/a.zip)", True),
        ("https://github.com/user-attachments/files/12/a.zip?x=$(id)", True),  # what follows is cut
        ("https://evil.example/user-attachments/files/12/a.zip", False),
        ("https://github.com/user-attachments/files/12/../../a.zip", False),
        ("https://github.com/user-attachments/files/12/a.zip/b", False),
        (
            "https://github.com/user-attachments/files/1/a.zip"
            " https://github.com/user-attachments/files/2/a.zip",
            False,
        ),
        ("$(touch here) `touch here`", False),
        ("", False),
    ],
)
def test_the_archive_is_the_only_attachment(body: str, found: bool, place: Path) -> None:
    done = step("check", "Where the archive is", place, BODY=body)
    assert (done.returncode == 0) == found and not (place / "here").exists()
    if found:
        expected = "https://github.com/user-attachments/files/12/a.zip\n"
        assert (place / "address.txt").read_text() == expected


def test_the_job_that_reads_strangers_files_can_write_nothing() -> None:
    check, propose = (WORKFLOW["jobs"][name] for name in ("check", "propose"))
    assert WORKFLOW["permissions"] == {} and check["permissions"] == {"contents": "read"}
    assert "secrets" not in json.dumps(WORKFLOW) and "token" not in json.dumps(check).lower()
    assert not check["steps"][0]["with"]["persist-credentials"]
    for job in (check, propose):  # nothing of the issue is part of a script
        assert not [s for s in job["steps"] if "github.event.issue" in s.get("run", "")]
    assert "issue.body" not in json.dumps(propose) and "issue.title" not in json.dumps(WORKFLOW)
