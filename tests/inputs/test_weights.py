"""Where weights lie, and the fingerprint of all that is read of them."""

import os
from pathlib import Path

import pytest
from helpers.damage import (
    TEXT,
    TINY,
    UNET,
    both,
    copy_pipeline,
    links,
    sets,
    shards,
    tensors,
    writes,
)
from helpers.refusals import refused

from bench.inputs.weights import locate, resolve
from bench.machine.offline import offline


def test_all_that_is_read_is_in_the_fingerprint(tmp_path: Path) -> None:
    """A link inside the folder counts by what it leads to, a shard like a single file."""
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
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
    with refused(tmp_path, "3 files"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        *((f"bench_plugins:{folder}", "bench_plugins") for folder in ("../../..", "/etc", "")),
        ("bench_plugins:backbones/nothing", "nothing"),
        *(("no_such_package:x", "no_such_package"), ("__main__:x", "__main__")),
        *(("~no_such_user/x", "no_such_user"), ("./a\0b", "a\\x00b"), ("./" + "x" * 5000, "xxx")),
        *((str(TINY / "README.md"), "README.md"), ("./nothing", "nothing"), ("a b c", "'a b c'")),
        ("hf:owner/name", "OWNER/NAME"),  # how its weights are named
    ],
)
def test_names_that_are_no_weights(weights: str, named: str) -> None:
    with refused(named) as caught:
        resolve(weights)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 6000


def test_a_folder_here_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may be that of a package, and has no colon."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench").mkdir()
    assert locate("bench") == str(tmp_path / "bench") and locate("owner/name") == "owner/name"


def test_without_a_network_nobody_blames_the_hub() -> None:
    with offline(), refused("nobody/has-this", "--offline") as caught:
        resolve("nobody/has-this")
    assert "unet" not in str(caught.value)  # it may be a model of another kind
