"""Every way of naming something on the Hub, under every fault, and afterwards without a network."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import huggingface_hub
import pyarrow as pa
import pytest
from helpers.given import picture, write_parquet
from helpers.hub import Fault, Hub, a_hub, leave, point_datasets
from helpers.matrix import matrix
from helpers.refusals import refused
from huggingface_hub import constants

from bench.contracts.specs import DatasetSpec
from bench.errors import AbsentError, BenchError, UserError
from bench.inputs.data import DataSource, load_split
from bench.inputs.rows import as_dataset
from bench.inputs.weights import resolve
from bench.machine import hub as hub_module
from bench.machine.cache import read_cached, write_cached
from bench.machine.offline import offline
from bench.machine.pushing import push_folder
from bench.recordings.recording import find_recording
from bench.running.parts.model import find_weights
from bench.running.parts.settings import RunConfig
from bench.running.prepare import resolve as resolve_run
from bench_plugins.datasets.hub import Hub as Dataset

NAME = "owner/name"
IMAGES = pa.array([picture(1), picture(2), picture(3)])


def at(revision: str | None) -> str:
    return NAME if revision is None else f"{NAME}@{revision}"


class Way(NamedTuple):
    """A way of naming something: its repository, its file, and what is read of it."""

    repository: str
    file: str
    read: Callable[[str | None], object]


def read_model(revision: str | None) -> object:
    weights = resolve(NAME, revision)
    path = weights.find("unet/diffusion_pytorch_model.safetensors")
    assert path is not None
    return weights.fingerprint, path.read_bytes(), weights.read("config.json")


def read_named_weights(revision: str | None) -> object:
    """Read what `--backbone clip --weights owner/name --revision` names."""
    named: dict[str, Any] = {"dataset": "digits", "backbone": "clip", "weights": NAME}
    run = resolve_run(RunConfig(**named, revision=revision))
    weights = find_weights(run.config, run.source, run.backbone_parameters)
    assert weights is not None
    path = weights.find(WAYS["--weights"].file)
    assert path is not None
    return weights.fingerprint, path.read_bytes()


def read_declared(revision: str | None) -> object:
    spec = DatasetSpec(name="pets", summary="three", source=f"hf:{at(revision)}", split="test")
    split = load_split(DataSource(spec))
    return split.class_names.names, split.labels


def read_recording(revision: str | None) -> object:
    folder = find_recording(f"hf:{at(revision)}", "results")
    return folder.name, (folder / "errors/part-0.parquet").read_bytes()


def read_labels(source: str) -> list[int]:
    return list(as_dataset(Dataset(source).load(None, None))["label"])


WAYS = {
    "model": Way(f"models/{NAME}", "unet/diffusion_pytorch_model.safetensors", read_model),
    "--weights": Way(
        f"models/{NAME}", "unet/diffusion_pytorch_model.safetensors", read_named_weights
    ),
    "dataset": Way(
        f"datasets/{NAME}",
        "data/test.parquet",
        lambda revision: read_labels(at(revision)),
    ),
    "first images": Way(
        f"datasets/{NAME}",
        "data/test.parquet",
        lambda revision: read_labels(f"{at(revision)}:/test[:2]"),
    ),
    "declared dataset": Way(f"datasets/{NAME}", "data/test.parquet", read_declared),
    "recording": Way(f"datasets/{NAME}", "errors/part-0.parquet", read_recording),
}
REVISIONS = (None, "main", "v1", "refs/pr/1", "commit")
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one of each, whose tag v1 and pull request have other content than main."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "own-cache"))
    pets = tmp_path / "pets"
    for number, label in enumerate("abc"):
        write_parquet(
            pets / str(number) / "data/test.parquet",
            {"image": IMAGES, "label": [label, label, "z"]},
        )
    with a_hub() as served:
        point_datasets(served, tmp_path / "cache", monkeypatch)
        for repository in {way.repository for way in WAYS.values()}:
            contents = [
                {
                    "config.json": b'{"number": %d}' % number,
                    "unet/config.json": b"{}",
                    "unet/diffusion_pytorch_model.safetensors": b"tensors %d" % number,
                    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
                }
                if repository.startswith("models")
                else {
                    "data/test.parquet": (pets / f"{number}/data/test.parquet").read_bytes(),
                    "manifest.json": b"{}",
                    "errors/part-0.parquet": (pets / f"{number}/data/test.parquet").read_bytes(),
                }
                for number in range(3)
            ]
            served.files[repository] = contents[0]
            served.revisions[repository] = {"v1": contents[1], "refs/pr/1": contents[2]}
        yield served
        # Before 1.0, a session keeps the HF_HUB_OFFLINE of when it was made.
        getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()


@pytest.mark.parametrize(
    ("name", "revision"),
    matrix(
        product(WAYS, REVISIONS),
        [*product(WAYS, ["commit"]), *product(["model"], REVISIONS)],
    ),
)
def test_what_was_fetched_needs_no_network(
    name: str, revision: str | None, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --offline, with it, and with HF_HUB_OFFLINE; nothing is written into the cache."""
    way = WAYS[name]
    if revision == "commit":
        revision = hub.commit(way.repository)
    fetched = way.read(revision)
    others = [way.read(other) for other in ("main", "v1", "refs/pr/1")]
    assert others.count(fetched) == 1, "a revision was taken for another one"
    leave(hub, tmp_path / "cache", monkeypatch)
    before = state(tmp_path / "cache")
    hub.log.clear()
    assert way.read(revision) == fetched
    with offline():
        assert way.read(revision) == fetched
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert way.read(revision) == fetched
    assert hub.log == [] and state(tmp_path / "cache") == before


def state(folder: Path) -> dict[str, int]:
    """Return when each file was written, except locks, which `datasets` 3 touches."""
    written = (path for path in folder.rglob("*") if path.suffix != ".lock")
    return {str(path): path.lstat().st_mtime_ns for path in written}


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process be larger than some bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Trouble(NamedTuple):
    """What is wrong, the words that say so, and the error."""

    words: str
    error: type[BenchError]
    fault: Mapping[str, Any] = MappingProxyType({})
    path: str = ""  # part of the path of the requests that fail; empty for the way's file


TROUBLES = {
    "no such repository": Trouble("", UserError),
    "private": Trouble("`hf auth login`", UserError, {"status": 401}, "/api/"),
    "no such revision": Trouble("v9", UserError),
    "licence": Trouble("licence", AbsentError, {"status": 403, "code": "GatedRepo"}),
    "busy listing": Trouble("503", AbsentError, {"status": 503}, "/api/"),
    "too many requests": Trouble("429", AbsentError, {"status": 429}, "/api/"),
    "busy file": Trouble("503", AbsentError, {"status": 503}),
    "listed but not there": Trouble("404", AbsentError, {"status": 404, "code": "EntryNotFound"}),
    "cut connection": Trouble("", AbsentError, {"after": 2}),
    "no network": Trouble("", AbsentError),
    "--offline": Trouble("--offline", AbsentError),
    "HF_HUB_OFFLINE": Trouble("HF_HUB_OFFLINE", AbsentError),
    "too large": Trouble("1,000.0 GB", UserError),
    "full disk": Trouble("HF_HOME", AbsentError),
}


STREAMED = {("first images", "too large"), ("first images", "full disk")}  # need no disk


@pytest.mark.parametrize(
    ("way", "trouble"),
    matrix(
        [pair for pair in product(WAYS, TROUBLES) if pair not in STREAMED],
        [*product(["model"], TROUBLES), ("dataset", "licence"), ("--weights", "too large")],
    ),
)
def test_each_failure_says_which_it_is(
    way: str, trouble: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, error, fault, path = TROUBLES[trouble]
    repository, file, read = WAYS[way]
    with ExitStack() as stack:
        if fault:
            hub.faults.append(Fault(path or f"/{file}", **fault))
        elif trouble == "no such repository":
            del hub.files[repository]
        elif trouble == "no network":
            leave(hub, tmp_path / "cache", monkeypatch)
        elif trouble == "--offline":
            stack.enter_context(offline())
        elif trouble == "HF_HUB_OFFLINE":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        elif trouble == "too large":
            hub.sizes[file] = 10**12
        elif trouble == "full disk":
            stack.enter_context(small_files())
        with refused(words, NAME) as caught:
            read("v9" if trouble == "no such revision" else None)
    assert type(caught.value) is error
    if trouble == "too large" and "model" in repository:
        assert not any(file in request for request in hub.asked)


@each_way
@pytest.mark.parametrize(
    ("status", "path"), matrix(product([429, 503], ["/api/", ""]), [(429, "/api/"), (503, "")])
)
def test_a_busy_hub_is_asked_again_when_it_says(way: Way, path: str, status: int, hub: Hub) -> None:
    hub.faults.append(Fault(path or f"/{way.file}", status, times=1, retry_after=7))
    assert way.read(None) == way.read("main")
    assert hub.faults[0].times == 0 and hub.pauses == [7.0]


RETRIES = (None, 0, 100, 9999)  # seconds that a busy Hub asks for


@pytest.mark.parametrize(
    ("way", "path", "status", "retry_after"),
    matrix(
        product(WAYS, ["/api/", ""], hub_module.BUSY, RETRIES),
        [
            *product(["model", "first images"], ["/api/", ""], [503], RETRIES),
            *product(["model"], ["/api/"], {*hub_module.BUSY} - {503}, [9999]),
        ],
    ),
)
def test_no_way_waits_longer_for_a_busy_hub_than_the_limit(
    way: str, path: str, status: int, retry_after: int | None, hub: Hub
) -> None:
    """However long the Hub is busy, and whatever it wants: listing and files share one limit."""
    _, file, read = WAYS[way]
    hub.faults.append(Fault(path or f"/{file}", status, retry_after=retry_after))
    with refused(status, kind=AbsentError):
        read(None)
    expected = {None: [1.0, 4.0, 15.0], 0: [1.0, 4.0, 15.0], 100: [100.0] * 3, 9999: []}
    assert hub.pauses == expected[retry_after]
    assert sum(hub.pauses) <= hub_module.LONGEST_WAIT


@pytest.mark.parametrize("retry_after", [3, 9999])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/commit/"])
def test_a_push_waits_no_longer_and_makes_no_second_commit(
    path: str, retry_after: int, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent/a.json").write_text("{}")
    hub.faults.append(Fault(path, 429, retry_after=retry_after))
    with refused("429", kind=BenchError):
        push_folder(tmp_path / "sent", "owner/new", "model", "a", False, create=True)
    again = path != "/commit/" and retry_after == 3
    assert hub.pauses == ([3.0, 4.0, 15.0] if again else [])


def test_a_hub_that_names_the_time_as_a_rate_limit_is_believed() -> None:
    """The public Hub sends this header, of which only a spent one says why it refuses."""
    error = Exception()
    error.response = SimpleNamespace(headers={"RateLimit": '"api";r=0;t=55'})  # type: ignore[attr-defined]
    assert hub_module._retry_after(error) == 55
    error.response.headers = {"RateLimit": '"api";r=3;t=55', "Retry-After": "7"}  # type: ignore[attr-defined]
    assert hub_module._retry_after(error) == 7


TEXT_FILE, TENSORS = "config.json", "unet/diffusion_pytorch_model.safetensors"
OTHERS: dict[str, Callable[[Path], object]] = {
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "other bytes": lambda path: path.write_bytes(path.read_bytes().replace(b"0", b"7")),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("file", [TEXT_FILE, TENSORS])
@pytest.mark.parametrize("stored", ["", "earlier version", "another program"])
def test_a_file_that_is_not_what_the_hub_lists_is_fetched_again(
    stored: str, file: str, other: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of large files are not hashed, nor those of a listing without hashes."""
    commit = hub.commit(f"models/{NAME}")
    fetched = read_model(commit)
    if stored:
        (own,) = (tmp_path / "own-cache").rglob("listings/models/*.json")
        listing = json.loads(read_cached(own) or b"")
        own.unlink()
    if stored == "earlier version":
        sizes = own.parents[2] / "files/models" / own.name
        write_cached(sizes, json.dumps(listing["files"]))
    elif stored and not hasattr(huggingface_hub, "get_cached_repo_tree"):
        pytest.skip("this version keeps no listing")
    hub_module._answers.clear()
    OTHERS[other]((resolve(NAME, commit).root / file).resolve())
    if other == "other bytes" and (file == TENSORS or stored == "earlier version"):
        assert read_model(commit) != fetched
        return
    with offline(), refused(file, "--offline", kind=AbsentError):
        read_model(commit)
    assert read_model(commit) == fetched
    hub.log.clear()
    assert read_model(commit) == fetched and hub.log == [], "it is asked for again and again"


@pytest.mark.parametrize("file", [TEXT_FILE, TENSORS])
@pytest.mark.parametrize("kind", ["link out", "link nowhere", "pipe"])
def test_no_file_that_others_put_into_the_cache_is_followed(
    kind: str, file: str, hub: Hub, tmp_path: Path
) -> None:
    fetched = read_model(None)
    path, canary = resolve(NAME).root / file, tmp_path / "canary"
    content = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(canary)
    if kind == "link out":
        canary.write_bytes(content)
    with refused(file):
        read_model(None)
    assert canary.exists() == (kind == "link out") and path.is_symlink() == (kind != "pipe")
    path.unlink()
    assert read_model(None) == fetched


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/../../../../../x.json"])
def test_a_listing_names_no_file_elsewhere(name: str, tmp_path: Path, hub: Hub) -> None:
    commit = replace(hub_module.find_commit(NAME), files={name: 3})
    with refused("folder"):
        commit.fetch(name)
    with refused("folder"):
        commit.prefetch([name])
    assert not list(tmp_path.rglob("x.json"))


def test_what_is_cached_is_used_of_a_busy_hub_at_once(hub: Hub) -> None:
    fetched = read_model(None)
    hub_module._answers.clear()
    hub.faults.append(Fault("/api/", 503))
    hub.log.clear()
    assert read_model(None) == fetched and len(hub.log) == 1


def test_a_branch_that_moves_is_followed(hub: Hub) -> None:
    first = read_model(None)
    hub.files[f"models/{NAME}"] = hub.revisions[f"models/{NAME}"]["v1"]
    hub_module._answers.clear()
    assert read_model(None) != first and read_model(None) == read_model("v1")


@pytest.mark.parametrize("revision", ["../../x", "..", "/etc/passwd", "a\nb"])
def test_a_revision_names_no_file_elsewhere(revision: str, hub: Hub, tmp_path: Path) -> None:
    before = state(tmp_path)
    with pytest.raises(UserError):
        resolve(NAME, revision)
    new = state(tmp_path).keys() - before.keys()
    assert not [path for path in new if "/refs/" in path]


@pytest.mark.long
def test_eight_processes_at_once(hub: Hub, tmp_path: Path) -> None:
    code = (
        "from bench.inputs.weights import resolve\n"
        f"weights = resolve({NAME!r})\n"
        f"print(weights.find({WAYS['model'].file!r}).read_bytes(), weights.fingerprint)\n"
    )
    variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, **variables}, stdout=subprocess.PIPE
        )
        for _ in range(8)
    ]
    printed = {process.communicate(timeout=300)[0] for process in processes}
    commit = hub.commit(f"models/{NAME}")
    assert printed == {f"b'tensors 0' {NAME}@{commit}\n".encode()}
