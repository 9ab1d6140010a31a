"""Prompts: English, and mistakes found with their line."""

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.refusals import refused

import bench as toolkit
from bench.inputs.prompts import from_file, from_template

ARTICLES = {
    "an": "airplane hour honest_man umbrella X-ray MRI_scan SUV 8 18-wheeler 11 heirloom urn",
    "a": "one unicorn European_bee ewer ukulele university used_car UFO house river 70 bus lens",
    "": "airplanes Leopards storage_tanks pairs_of_scissors cameras",
}


@pytest.mark.parametrize("article", ARTICLES)
def test_the_article_of_a_class(article: str) -> None:
    for word in ARTICLES[article].split():
        phrase = word.replace("_", " ")
        wanted = f"a photo of {article} {phrase}".replace("  ", " ")
        assert from_template("a photo of a {class}", [phrase]).texts == (wanted,)
        assert from_template("a photo of an {class}", [phrase]).texts == (wanted,)


def test_a_class_before_a_noun_or_with_an_article_of_its_own_gets_none() -> None:
    assert from_template("a {class} square", ["stripes"]).texts == ("a stripes square",)
    texts = from_template("A {class}", ["house"], {"house": "an old house"}).texts
    assert texts == ("an old house",)


def test_a_template_of_the_user_is_filled_in_as_written() -> None:
    phrases = {"airplane": "an airplane"}
    for template, text in (
        ("a photo of a {class}", "a photo of a airplane"),
        ("the {class}, from above", "the airplane, from above"),
        ("{class} from above", "an airplane from above"),
    ):
        assert from_template(template, ["airplane"], phrases, as_written=True).texts == (text,)
    plain = from_template("a photo of an {class}", ["dogs", "one"], as_written=True)
    assert plain.texts == ("a photo of an dogs", "a photo of an one")
    assert toolkit.prompts("digits", template="a photo of an {class}")[1] == "a photo of an one"


@pytest.mark.parametrize(
    ("template", "named"),
    [
        *(("a photo", "{class}"), ("", "{class}"), ("a {kind} of {class}", "'{kind}'")),
        *(("a {class} {", "'{'"), ("a {Class} of {class}", "'{Class}'")),
    ],
)
def test_templates_that_are_refused(template: str, named: str) -> None:
    with refused(named):
        from_template(template, ["cat", "dog"])


@pytest.mark.parametrize("names", [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("a  b", "a b")])
def test_prompts_that_are_the_same_are_refused(names: tuple[str, str]) -> None:
    with refused(names[1]):
        from_template("a photo of a {class}", names)


def test_control_characters_in_a_prompt_are_refused() -> None:
    for phrase in ("a \x1b[31mcat", "a\x0bcat", "a\u2028cat", "a\ud800cat"):
        with refused("cat"):
            from_template("{class}", ["cat"], {"cat": phrase})
    assert from_template("{class}\n", ["a\tcat"]).texts == ("a\tcat\n",)


def test_the_same_prompt_of_two_classes_is_refused_with_its_line(tmp_path: Path) -> None:
    for line in ("A  Photo,harbor,1", "a photo,denseresidential,0"):
        file = tmp_path / "prompts.csv"
        file.write_text(f"{HEAD}a photo,denseresidential,0\n{line}\nboats,harbor,1\n")
        with refused("csv:3", "csv:2"):
            from_file(file, CLASSES)


CLASSES = ("dense residential", "harbor")
HEAD = "prompt,classname,classidx\n"


def test_a_prompts_file_may_have_several_a_class(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(f'{HEAD}"houses, many",denseresidential,0\na harbor,harbor,1\nboats,Harbor,1\n')
    prompts = from_file(file, CLASSES)
    assert prompts.texts == ("houses, many", "a harbor", "boats")
    assert prompts.class_of_prompt == (0, 1, 1)


# What is wrong with any table of a user is refused in `test_users_tables`.
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("prompt,class,classidx\na,harbor,1\n", (":1", "'classname'")),
        (f"{HEAD}a,harbour,1\n", (":2", "'harbour'", "'harbor'")),
        (f"{HEAD}a,harbor,0\n", (":2", "'harbor'", "1")),
        (f"{HEAD}a,harbor,9\n", (":2", "'9'")),
        (f"{HEAD}a,harbor,{'1' * 5000}\n", (":2", "'111")),
        (f"{HEAD}a,harbor,1\n ,harbor,1\n", (":3",)),
        (f"{HEAD}a,harbor,1\n", ("'dense",)),
    ],
)
def test_mistakes_in_a_prompts_file(content: str, named: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(content)
    with refused("prompts.csv", *named):
        from_file(file, CLASSES)


def test_a_prompt_that_would_be_cut_is_found_before_the_run_begins(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    rows = [f"{'x' * 90 if d == 4 else name},{name},{d}" for d, name in enumerate(NAMES)]
    (tmp_path / "prompts.csv").write_text(HEAD + "\n".join(rows) + "\n")
    done = bench(
        *("run", "digits", "--backbone", pipelines["sd15"], "--prompts", tmp_path / "prompts.csv"),
        *("--results", tmp_path / "results"),
    )
    assert done.refuses("prompts.csv:6", "77")
    assert not (tmp_path / "results").exists()


NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_bench_prompts_shows_tokens() -> None:
    rows = bench("prompts", "digits", "--json").json
    assert len(rows) == 10 and all(3 <= row["tokens"] < 40 for row in rows)
    shown = bench("prompts", "ucmerced", "--backbone", "sd2")
    assert shown.code == 0 and "a satellite photo of a golf course" in shown.out
    assert "No token counts" in shown.out  # the Hub is off in the tests
