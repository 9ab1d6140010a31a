"""Where weights lie, and the fingerprint of all that is read of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.damage import (
    TEXT,
    UNET,
    both,
    copy_pipeline,
    links,
    sets,
    shards,
    tensors,
    writes,
)
from helpers.places import ROOT

from bench.errors import UserError
from bench.inputs.weights import locate, resolve
from bench.machine.offline import offline

TINY = ROOT / "plugins/bench_plugins/backbones/weights/tiny_digits"


def test_all_that_is_read_is_in_the_fingerprint(tmp_path: Path) -> None:
    """A link inside the folder counts by what it leads to, a shard like a single file."""
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    assert resolve(str(folder)).fingerprint != resolve(str(TINY)).fingerprint  # no README, …
    for damage in (
        both(shards(TEXT)),
        tensors("text_encoder/one.safetensors", sets(0.5)),
        both(lambda f: (f / UNET).rename(f / "unet/a.safetensors"), links(UNET, "a.safetensors")),
        tensors("unet/a.safetensors", sets(0.5)),
        writes("tokenizer/chat_template.jinja", "Prompt: {{ messages }}"),
    ):
        before = resolve(str(folder)).fingerprint
        damage(folder)
        assert resolve(str(folder)).fingerprint != before


def test_a_file_rewritten_with_the_same_size_and_time_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.inputs.weights.LARGE_FILE_BYTES", 10)
    file = tmp_path / "weights" / "x.safetensors"
    file.parent.mkdir()
    found = []
    for content in ("one " * 10, "two " * 10):
        file.write_text(content)
        os.utime(file, ns=(10**18, 10**18))
        found += [resolve(str(file.parent)).fingerprint for _ in range(2)]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_folder_of_very_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.inputs.weights.MAX_WEIGHT_FILES", 3)
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(UserError, match="more than 3 files"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("bench_plugins:../../..", "not a folder inside the package"),
        ("bench_plugins:/etc", "not a folder inside the package"),
        ("bench_plugins:", "not a folder inside the package"),
        ("bench_plugins:backbones/nothing", "does not exist"),
        ("no_such_package:x", "not installed"),
        ("__main__:x", "not installed"),
        ("~no_such_user/x", "not the name of a folder"),
        ("./" + "x" * 5000, "not the name of a folder|does not exist"),
        ("./a\0b", "not the name of a folder"),
        (str(TINY / "README.md"), "is not a folder"),
        ("./nothing", "does not exist"),
        ("a b c", "not on this machine, and .* is not the id of a model on the Hub"),
    ],
)
def test_names_that_are_no_weights(weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve(weights)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 6000


def test_a_folder_here_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may be that of a package, and has no colon."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench").mkdir()
    assert locate("bench") == str(tmp_path / "bench") and locate("owner/name") == "owner/name"


def test_without_a_network_nobody_blames_the_hub() -> None:
    with offline(), pytest.raises(UserError) as refused:
        resolve("nobody/has-this")
    assert "the Hub was not asked (--offline)" in str(refused.value)
    assert "unet" not in str(refused.value)  # it may be a model of another kind


def test_a_prefix_of_the_hub_is_answered_with_how_its_weights_are_named() -> None:
    with pytest.raises(UserError, match="on the Hub are named OWNER/NAME"):
        resolve("hf:owner/name")
