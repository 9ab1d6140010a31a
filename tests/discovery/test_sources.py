"""Which code computes a run: a change of a source file changes its hash; nothing else does."""

import hashlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.places import ROOT
from helpers.plugins import install

from bench.discovery import sources
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.loading import Plugins, load_plugins
from bench.discovery.sources import source_hashes

PLUGIN = """
from bench import hookimpl

@hookimpl
def register_datasets(register):
    register("sourced", target="sourced_parts:Pairs")
"""


def test_the_toolkit_is_always_there_and_others_only_where_they_are_used() -> None:
    plugins = load_plugins()
    code = source_hashes(plugins, [None])
    assert list(code) == [OWN_DISTRIBUTION]
    assert code == source_hashes(plugins, [OWN_DISTRIBUTION, None])
    packages = sources._packages(plugins, OWN_DISTRIBUTION)
    assert packages == {"bench", "bench_plugins"}
    files = dict(sources._list_files("bench"))
    hashed = hashlib.sha256()
    for package in ("bench", "bench_plugins"):
        for name, file in sorted(sources._list_files(package)):
            content = file.read_bytes()
            hashed.update(f"{package} {name} {len(content)}\n".encode() + content)
    assert code[OWN_DISTRIBUTION] == hashed.hexdigest()[:16]
    assert files["inputs/estimand.py"] == ROOT / "bench/inputs/estimand.py"


def test_a_module_without_a_file_has_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_here", ModuleType("made_here"))
    assert not list(sources._list_files("made_here"))
    assert not list(sources._list_files("is_not_installed"))


def test_the_module_of_a_target_counts_as_the_plugin_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.discovery.finding import find_plugins

    install(tmp_path, "sourced", PLUGIN)
    parts = tmp_path / "sourced_parts.py"
    parts.write_text("class Pairs: loss = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BENCH_LOAD_PLUGINS", "sourced")
    plugins = Plugins()
    for entry in find_plugins():
        if entry.distribution == "sourced":
            plugins.load(entry)

    def code() -> str:
        sources._hash_packages.cache_clear()
        return source_hashes(plugins, ["sourced"])["sourced"]

    first = code()
    os.utime(parts, (0, 0))
    (tmp_path / "sourced_parts.txt").write_text("notes")
    assert code() == first
    parts.write_text("class Pairs: loss = 2")
    assert code() != first
