"""Prompts: English, and mistakes found with their line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench

import bench as toolkit
from bench.errors import UserError
from bench.inputs.prompts import from_file, from_template


def test_articles() -> None:
    texts = from_template("a photo of a {class}", ["airplane", "river"]).texts
    assert texts == ("a photo of an airplane", "a photo of a river")
    texts = from_template("A {class}", ["house"], {"house": "an old house"}).texts
    assert texts == ("an old house",)


def test_ucmerced_reads_as_english() -> None:
    prompts = toolkit.prompts("ucmerced")
    assert len(prompts) == 21
    assert prompts[1] == "a satellite photo of an airplane"
    assert prompts[6] == "a satellite photo of a dense residential area"
    assert prompts[19] == "a satellite photo of storage tanks"
    other = toolkit.prompts("ucmerced", template="{class} from above")
    assert other[1] == "an airplane from above"


CLASSES = ("dense residential", "harbor")
HEAD = "prompt,classname,classidx\n"


def test_a_prompts_file_may_have_several_a_class(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(f'{HEAD}"houses, many",denseresidential,0\na harbor,harbor,1\nboats,Harbor,1\n')
    prompts = from_file(file, CLASSES)
    assert prompts.texts == ("houses, many", "a harbor", "boats")
    assert prompts.class_of_prompt == (0, 1, 1)


MISTAKES = {
    "missing file": (None, "there is no file"),
    "bad column": ("prompt,class,classidx\na,harbor,1\n", ":1: the column 'classname' is missing"),
    "unknown class": (f"{HEAD}a,harbour,1\n", ":2: unknown class 'harbour'. Did you mean 'harbor'"),
    "wrong index": (f"{HEAD}a,harbor,0\n", ":2: class 'harbor' has index 1"),
    "index out of range": (f"{HEAD}a,harbor,9\n", ":2: classidx '9'"),
    "no index": (f"{HEAD}a,harbor\n", ":2: classidx ''"),
    "empty prompt": (f"{HEAD}a,harbor,1\n ,harbor,1\n", ":3: the prompt is empty"),
    "class without prompt": (f"{HEAD}a,harbor,1\n", "no prompt for 1 of 2 classes: 'dense"),
    "not text": (b"\xff\xfe\x00", "not a UTF-8 CSV file"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_a_prompts_file(case: str, tmp_path: Path) -> None:
    content, message = MISTAKES[case]
    file = tmp_path / "prompts.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        from_file(file, CLASSES)
    assert message in str(error.value)


def test_a_prompt_that_would_be_cut_is_found_before_weights_are_read(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    """The weights are made unreadable: they are never reached."""
    import shutil

    folder = tmp_path / "pipeline"
    shutil.copytree(pipelines["sd15"], folder)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"")
    rows = [f"{'x' * 90 if d == 4 else 'a digit'},{name},{d}" for d, name in enumerate(NAMES)]
    (tmp_path / "prompts.csv").write_text(HEAD + "\n".join(rows) + "\n")
    done = bench(
        *("run", "digits", "--backbone", folder, "--prompts", tmp_path / "prompts.csv"),
        *("--results", tmp_path / "results"),
    )
    assert done.code == 2 and "prompts.csv:6" in done.err and "cut at 77" in done.err


NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_bench_prompts_shows_tokens() -> None:
    rows = bench("prompts", "digits", "--json").json
    assert len(rows) == 10 and all(3 <= row["tokens"] < 40 for row in rows)
    shown = bench("prompts", "ucmerced", "--backbone", "sd2")
    assert shown.code == 0 and "a satellite photo of a golf course" in shown.out
    assert "No token counts" in shown.out  # the Hub is off in the tests
