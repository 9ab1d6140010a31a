"""One switch for the network: for every source, by itself where runs are read, and taken back."""

import os
import socket
import sys
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest
from helpers.command import bench, python
from helpers.hub import a_hub
from helpers.refusals import refused
from helpers.runs import store
from huggingface_hub import constants

import bench as api
from bench.machine.offline import VARIABLES, OfflineError, is_offline, offline

ELSEWHERE = "192.0.2.1"  # RFC 5737: an address that no machine has
READERS = """
import sys
from bench.cli.main import main
results, first, second = sys.argv[1:]
for arguments in (
    ["report", "--out", f"{results}/page.html"],
    ["show", first, "--pictures", "--statistics"],
    ["leaderboard"],
    ["compare", first, second],
):
    sys.argv = ["bench", *arguments, "--results", results]
    try:
        main()
    except SystemExit as stopped:
        print("ended", arguments[0], stopped.code)
print("heavy", *{"torch", "diffusers", "transformers"} & set(sys.modules))
"""


def switches() -> list[object]:
    from datasets import config

    variables = [os.environ.get(name) for name in VARIABLES]
    return [*variables, constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE, config.HF_DATASETS_OFFLINE]


def test_within_the_block_libraries_ask_for_nothing_and_afterwards_as_before() -> None:
    before = switches()
    with offline():
        assert constants.is_offline_mode() and is_offline()
        assert [os.environ[name] for name in VARIABLES] == ["1"] * len(VARIABLES)
        with refused("ffline", kind=Exception):
            huggingface_hub.HfApi().model_info("facebook/DiT-XL-2-256")
        with offline(), offline(reason=False):
            assert is_offline()
        assert is_offline() and switches() != before
    assert switches() == before and not is_offline()


@pytest.mark.long
def test_a_library_that_is_imported_within_the_block_is_told_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    done = python(
        "from bench.machine.offline import offline\n"
        "with offline():\n"
        "    from huggingface_hub import constants\n"
        "    from datasets import config\n"
        "    print(constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE)\n"
        "print(constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE, config.HF_DATASETS_OFFLINE)\n"
    )
    assert done.out.split() == ["True"] * 2 + ["False"] * 3, done.err


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch lets connections pass where Ray is imported, as other tests may have done."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)


def test_other_machines_cannot_be_reached_and_this_one_can() -> None:
    with offline():
        with refused(ELSEWHERE, kind=OfflineError):
            socket.create_connection((ELSEWHERE, 80), timeout=5)
        with refused("example.org", kind=OfflineError):
            socket.getaddrinfo("example.org", 80)
        with refused("example.org", kind=OSError):
            urllib.request.urlopen("http://example.org/", timeout=5)
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
            socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((ELSEWHERE, 80))  # sends nothing
            own = asking.getsockname()[0]
        with socket.create_server((own, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()


def test_machines_of_a_cluster_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--offline --executor ray`: libraries and downloads keep to the switch all the same."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with offline(), pytest.raises(OSError) as failed:
        socket.create_connection((ELSEWHERE, 80), timeout=0.05)
    assert not isinstance(failed.value, OfflineError)


def test_a_run_without_a_network_leaves_the_process_with_one(tmp_path: Path) -> None:
    before = switches()
    for again in (True, False):
        run = api.run("digits", "majority", results=str(tmp_path), limit=10, offline=again)
        assert run["status"] == "complete" and switches() == before


@pytest.mark.long
def test_readers_of_stored_runs_send_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored run names its dataset: whoever wrote it would learn who reads it, and when."""
    data: dict[str, Any] = {"config": {"dataset": "hf:evil/beacon", "limit": None}}
    runs = [store(tmp_path, [0, 1, 2], [0, 1, 1], seed=seed, **data) for seed in (0, 1)]
    with a_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        done = python(READERS, tmp_path, *runs)
        assert hub.asked == [], hub.asked
    ended = [line for line in done.out.splitlines() if line.startswith("ended")]
    commands = ("report", "show", "leaderboard", "compare")
    assert ended == [f"ended {command} 0" for command in commands], done.out + done.err
    assert done.out.splitlines()[-1].split() == ["heavy"], "they import what runs a model"


def test_torchvision_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")

    def ended(_: object) -> None:
        raise AssertionError("a download was asked for")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", ended)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    command = ("run", "torchvision:MNIST", "--backbone", "random", "--results", tmp_path)
    done = bench(*command, "--offline")
    assert done.refuses("MNIST"), done.err
