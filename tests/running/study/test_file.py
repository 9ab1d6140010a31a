"""The file of a study: what makes no sense is refused before anything is scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sedes = [1]", "unknown setting 'sedes'. Did you mean 'seeds'"),
        ('backbones = ["randon"]', "Unknown backbone 'randon'. Did you mean 'random'"),
        ('datasets = ["@nothing"]', "nothing"),
        ("seed = 1\nseeds = [2]", "'seeds' and 'seed' set the same thing"),
        ("seeds = []", "seeds = [] is empty|seed is an empty list"),
        ('loss = ["l2", "l7"]', "--loss"),
        ('[[exclude]]\nbackbone = "randon"', "backbone has no value 'randon'. Did you mean"),
        ("pilot = -1", "pilot = -1"),
        ("margin = 3", "margin = 3"),
        ("published = 0.7", "written as [[published]]"),
        ("[published]\nvalue = 0.7", "[published]: source: Field required"),
        ('[published]\nsource = ""', "[published]: source: "),
        ('[published]\nsource = "x"\nvalue = "0.7"', "[published]: value: "),
        ('[published]\nsource = "x"\nvalue = 70.0', "[published]: value: Input should be less"),
        ('[published]\nsource = "x"\nimages = 0', "[published]: images: "),
        ('[published]\nsource = "x"\nvalu = 0.7', "no axis 'valu'. Did you mean 'value'"),
        ('[published]\nsource = "x"\nrehearsal = true', "no axis 'rehearsal'"),
        ('[published]\nsource = "x"\nmetric = "acuracy"', "Did you mean 'accuracy'"),
        ('[published]\nsource = "x"\nmetric = "auroc"', "no run has a metric 'auroc'"),
        ('[published]\nsource = "x"\nbackbone = "randon"', "[published]: backbone has no value"),
        (
            '[[published]]\nsource = "x"\n[[published]]\nsource = "y"',
            "Several tables [[published]] match the run digits, random",
        ),
        ("summary = 3", "summary = 3 is not valid. One line of text"),
        ('stop = "best"\n[[grid]]\nlimit = 4', "stop and limit both end runs"),
        ("[[exclude]]", "[[exclude]]: an empty table would exclude everything"),
        (
            'whole_groups = "yes"',
            "whole_groups = 'yes' is not valid. Whether the images of a group",
        ),
        (
            'over = "seed"',
            "over = 'seed' is not valid. Population that tests generalise to: \"seeds\"",
        ),
        ('over = "seeds"', "the same seeds for every method, at least 3: dataset digits"),
        ('seeds = [0, 1]\nover = "seeds"', "backbone random has 2. Write seeds"),
        (
            'over = "seeds"\nlimit = 9\n[[grid]]\nseeds = [0, 1, 2]\n'
            '[[grid]]\nbackbone = "majority"\nseed = 0',
            "backbone majority has 1",
        ),
        ('shifts = [["digits", "digit"]]', "no dataset 'digit'. Did you mean 'digits'"),
        (
            'strategies = [{name = "full", label = "x"}, {name = "race", label = "x"}]',
            "strategy = 'x'; their strategy differs: full and race. Give each a label",
        ),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_scoring(
    line: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    names = ["datasets", "backbones"]
    usual = [f'{n} = ["{v}"]' for n, v in zip(names, ("digits", "random"), strict=True)]
    file.write_text("\n".join([u for u in usual if not line.startswith(u.split()[0])] + [line]))
    done = bench("study", file, "--results", tmp_path / "r")
    assert done.code == 2 and any(one in done.err for one in said.split("|")), done.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"seeds = {[1] * 20_000}\nlimit = {[5] * 20_000}",
            "400,000,000 combinations (20,000 limit × 20,000 seed); at most 10,000",
        ),
        (
            f"seeds = {[1] * 4000}\n" + "[[grid]]\nlimit = [1, 2]\n" * 2,
            "more than 10,000 combinations together",
        ),
        ("[[exclude]]\nseed = 1\n" * 1001, "at most 1,000 tables are allowed, got 1,001"),
    ],
)
def test_what_would_take_hours_is_refused_before_work(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_text(f'datasets = ["digits"]\nbackbones = ["random"]\n{text}')
    done = bench("study", file, "--results", tmp_path / "r", "--dry-run")
    assert done.code == 2 and said in done.err, done.err
    assert len(done.err.strip().splitlines()) == 1
