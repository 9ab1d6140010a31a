"""A cache is keyed by all that its content depends on: each notices the edit that it must."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.places import ROOT
from helpers.plugins import install

from bench.contracts.specs import BackboneSpec
from bench.discovery import backbones, sources
from bench.discovery.loading import load_plugins
from bench.engine.embeddings import conditioning_file
from bench.inputs.weights import Weights
from bench.machine import environment
from bench_plugins.backbones._pipelines.learning import tried_file
from bench_plugins.backbones._weights import embedding_cache
from bench_plugins.backbones._weights.embedding_cache import entry

CACHES = "cache_dir|converted|_recall|_remembered|_listing_file"  # functions that name a cache
CALLED = re.compile(rf"""(?:{CACHES})\(\s*(?:\w+, )?"([a-z_-]+)""")
FIRST_CELL = re.compile(r"^\| (`[^|]+) \|", re.MULTILINE)


def test_every_cache_is_listed_with_its_key() -> None:
    files = [path for room in ("bench", "plugins") for path in (ROOT / room).rglob("*.py")]
    used = {name for path in files for name in CALLED.findall(path.read_text())}
    design = (ROOT / "design/store.md").read_text().partition("## Caches")[2]
    cells = FIRST_CELL.findall(design.partition("\n## ")[0])
    assert used == {name for cell in cells for name in re.findall("`([^`]+)`", cell)}


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another version of a library be installed."""
    names = [*environment.installed_distributions(), "another-2.0.dist-info"]
    for module in ("bench.engine.embeddings", "bench_plugins.backbones._pipelines.learning"):
        monkeypatch.setattr(f"{module}.installed_distributions", lambda: names)
    monkeypatch.setattr(embedding_cache, "version", lambda name: "9")


def edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sources of the toolkit be others."""
    monkeypatch.setattr(sources, "_hash_packages", lambda packages: "other sources")


KEYS: dict[str, tuple[Callable[[], Path], list[Callable[[pytest.MonkeyPatch], None]]]] = {
    "embeddings": (lambda: conditioning_file("model", ["a", "b"]), [upgrade]),
    "calls": (lambda: tried_file("Pipeline", "weights", "cpu"), [upgrade, edit]),
    "features": (lambda: entry("model", [b"a"]), [upgrade]),
}


@pytest.mark.parametrize("name", KEYS)
def test_what_is_installed_is_part_of_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, changes = KEYS[name]
    for change in changes:
        before = key()
        with monkeypatch.context() as changed:
            change(changed)
            assert key() != before
        assert key() == before


@pytest.mark.parametrize(
    ("key", "others"),
    [
        (
            lambda of, texts, null: conditioning_file(of, texts, null),
            [("n", ["a", "b"], False), ("m", ["b", "a"], False), ("m", ["a", "b"], True)],
        ),
        (
            lambda of, texts, null: tried_file(of, texts, null),
            [("n", ["a", "b"], False), ("m", ["a"], False), ("m", ["a", "b"], True)],
        ),
    ],
    ids=["embeddings", "calls"],
)
def test_everything_that_was_asked_is_part_of_the_key(
    key: Callable[..., Path], others: list[Any]
) -> None:
    paths = [key(*asking) for asking in [("m", ["a", "b"], False), *others]]
    assert len({*paths}) == len(paths)


def test_encoded_prompts_are_those_of_the_plugin_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "encoding", "class Model: ...")
    spec = BackboneSpec(name="encoding", target="encoding:Model")
    registry = load_plugins().backbones
    monkeypatch.setitem(registry._specs, spec.name, spec)
    monkeypatch.setitem(registry._owners, spec.name, "encoding")

    def key() -> str:
        sources._hash_packages.cache_clear()
        return backbones.encoder_key(spec, Weights("/weights", None, "a"), {})

    first = key()
    (tmp_path / "encoding.py").write_text("class Model: changed = True")
    assert key() != first
    (tmp_path / "encoding.py").write_text("class Model: ...")
    assert key() == first
