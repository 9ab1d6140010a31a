"""The file of a study: what makes no sense is refused before anything is scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sedes = [1]", "'sedes'|'seeds'"),
        ('backbones = ["randon"]', "'randon'|'random'"),
        ('datasets = ["@nothing"]', "nothing"),
        ("seed = 1\nseeds = [2]", "'seeds'|'seed'"),
        ("seeds = []", "seed"),
        ('loss = ["l2", "l7"]', "--loss"),
        ('[[exclude]]\nbackbone = "randon"', "backbone|'randon'"),
        ("pilot = -1", "pilot = -1"),
        ("margin = 3", "margin = 3"),
        ("published = 0.7", "[[published]]"),
        ("[published]\nvalue = 0.7", "[published]: source"),
        ('[published]\nsource = ""', "[published]: source"),
        ('[published]\nsource = "x"\nvalue = "0.7"', "[published]: value"),
        ('[published]\nsource = "x"\nvalue = 70.0', "[published]: value"),
        ('[published]\nsource = "x"\nimages = 0', "[published]: images"),
        ('[published]\nsource = "x"\nvalu = 0.7', "'valu'|'value'"),
        ('[published]\nsource = "x"\nrehearsal = true', "'rehearsal'"),
        ('[published]\nsource = "x"\nmetric = "acuracy"', "'accuracy'"),
        ('[published]\nsource = "x"\nmetric = "auroc"', "'auroc'"),
        ('[published]\nsource = "x"\nbackbone = "randon"', "[published]: backbone"),
        ('[[published]]\nsource = "x"\n[[published]]\nsource = "y"', "[[published]]"),
        ("summary = 3", "summary = 3"),
        ('stop = "best"\n[[grid]]\nlimit = 4', "stop|limit"),
        ("[[exclude]]", "[[exclude]]"),
        ('whole_groups = "yes"', "whole_groups = 'yes'"),
        ('over = "seed"', "over = 'seed'|seeds"),
        ('over = "seeds"', "seeds|at least 3"),
        ('seeds = [0, 1]\nover = "seeds"', "backbone random has 2"),
        (
            'over = "seeds"\nlimit = 9\n[[grid]]\nseeds = [0, 1, 2]\n'
            '[[grid]]\nbackbone = "majority"\nseed = 0',
            "backbone majority has 1",
        ),
        ('shifts = [["digits", "digit"]]', "'digit'|'digits'"),
        ('strategies = [{name = "full", label = "x"}, {name = "race", label = "x"}]', "'x'"),
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
    assert done.refuses(*said.split("|")), done.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"seeds = {[1] * 20_000}\nlimit = {[5] * 20_000}", "400,000,000"),
        (f"seeds = {[1] * 4000}\n" + "[[grid]]\nlimit = [1, 2]\n" * 2, "10,000"),
        ("[[exclude]]\nseed = 1\n" * 1001, "1,001"),
    ],
)
def test_what_would_take_hours_is_refused_before_work(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_text(f'datasets = ["digits"]\nbackbones = ["random"]\n{text}')
    done = bench("study", file, "--results", tmp_path / "r", "--dry-run")
    assert done.refuses(said), done.err
    assert len(done.err.strip().splitlines()) == 1
