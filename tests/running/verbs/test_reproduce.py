"""Protocols: complete, runnable settings; rehearsed offline on a small backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.given import make_folder

from bench.contracts.protocols import CollectionSpec, ProtocolSpec
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.running.parts.data import expand_datasets
from bench.running.verbs.estimate import make_plan
from bench.running.verbs.reproduce import protocol_config

PLUGINS = load_plugins()
PROTOCOLS = list(PLUGINS.protocols)


@pytest.mark.parametrize("spec", PROTOCOLS, ids=lambda spec: spec.name)
def test_a_protocol_pins_what_moves_its_number(spec: ProtocolSpec) -> None:
    config, differs = protocol_config(spec, {})
    pinned = {"dataset", "split", "backbone", "strategy", "loss", "levels", "plan", "latent"}
    assert pinned | {"noise_per", "params"} <= set(spec.settings)
    assert config.dataset in PLUGINS.datasets and str(config.backbone) in PLUGINS.backbones
    assert spec.source and spec.summary and differs == list(spec.differs)
    if spec.published is None:
        assert any(said.startswith("no figure is shipped") for said in spec.differs)
    if spec.images is None:  # nobody counted them: a plan reads the data
        return
    plan = make_plan(config.model_copy(update={"results": "/nonexistent", "weights": None}))
    assert plan.images and plan.evaluations_per_image
    assert spec.images == plan.images or spec.name == "ucmerced/seed"


def test_names_and_collections_are_those_of_registered_datasets() -> None:
    for collection in PLUGINS.collections:
        assert isinstance(collection, CollectionSpec) and collection.summary
        assert all(name in PLUGINS.datasets for name in collection.datasets)
    names = expand_datasets(["digits", "@ood-imagenet", "imagenet-v2"])
    assert names[:2] == ["digits", "imagenet-v2"] and len(names) == len(set(names)) == 5
    with pytest.raises(UserError, match=r"Unknown collection 'aerail'.*'aerial'"):
        expand_datasets(["@aerail"])
    assert "is a collection of 8 datasets" in bench("prompts", "@aerial").err
    rows = bench("list", "collections", "--json").json
    assert {row["name"] for row in rows} >= {"li2023", "clark2023", "aerial", "ood-imagenet"}


def test_a_plan_says_what_it_would_take(tmp_path: Path) -> None:
    done = bench("reproduce", "clark2023/pets", "--dry-run", "--json", "--results", tmp_path)
    made = done.json
    assert made["published"] == 0.725 and made["plan"]["images"] == 3669
    assert any("at most 4,096" in said for said in made["differs"])
    assert bench("reproduce", "li2023/petz").code == 2


def test_the_flat_protocol_of_a_tree_takes_a_tree(tmp_path: Path) -> None:
    """`hdc2024` publishes the flat classifier; its own rules need the user's tree of ImageNet."""
    classes = PLUGINS.datasets.get("imagenet").classes
    assert classes is not None
    rows = [f'"{name}",{"animals" if n < 398 else "things"},' for n, name in enumerate(classes)]
    tree = tmp_path / "tree.csv"
    tree.write_text("\n".join(["node,parent,words", "animals,,an animal", "things,,", *rows]))
    options = ("--strategy", "hierarchy", "--set", "rule=fixed", "--dry-run", "--json")
    made = bench("reproduce", "hdc2024/imagenet", *options, "--hierarchy", tree).json
    assert made["rehearsal"] and made["plan"]["images"] == 1000
    assert "--hierarchy FILE" in bench("reproduce", "hdc2024/imagenet", *options).err


def test_a_protocol_is_rehearsed_and_listed(tmp_path: Path) -> None:
    options: list[object] = ["--backbone", "tiny-digits", "--limit", "4", "--results", tmp_path]
    folder = tmp_path / "mnist"
    make_folder(folder, *(f"test/{digit}/1.png" for digit in range(10)))
    options += ["--data-dir", folder, "--strategy", "uniform", "--set", "draws=4"]
    done = bench("reproduce", "clark2023/mnist", *options, "--json")
    assert done.code == 0, done.err
    assert "a rehearsal: not" in bench("reproduce", "clark2023/mnist", *options).out
    made = done.json
    assert (
        made["images"] == 4
        and made["rehearsal"]
        and made["difference"] == pytest.approx(made["ours"] - 0.191)
    )
    assert made["interval"][0] <= made["ours"] <= made["interval"][1]
    assert any(said.startswith("backbone: tiny-digits") for said in made["differs"])
    assert "strategy: uniform instead of paired-ttest" in made["differs"]
    assert "images: 4 instead of 4,096" in made["differs"]
    rows = bench("list", "protocols", "--json", "--results", tmp_path).json
    runs = {row["name"]: row["runs"] for row in rows}
    assert runs["clark2023/mnist"] == [made["run_id"]] and runs["li2023/pets"] == []


def test_reproduce_alone_lists_what_it_repeats(tmp_path: Path) -> None:
    done = bench("reproduce", "--results", tmp_path)
    assert done.code == 0 and all(spec.name in done.out for spec in PROTOCOLS)
    rows = bench("reproduce", "--json", "--results", tmp_path).json
    assert [row["name"] for row in rows] == [spec.name for spec in PROTOCOLS]


def test_another_dataset_is_not_taken_for_a_split_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "vehicles"
    make_folder(folder, "train/car/1.png", "train/van/1.png")
    options: list[object] = ["--data-dir", folder, "--backbone", "tiny-digits", "--limit", 2]
    done = bench("reproduce", "li2023/pets", *options, "--offline", "--results", tmp_path)
    assert done.code == 2 and "does not hold dataset 'pets', which has 37 classes" in done.err
    assert "'car', 'van'" in done.err
    pets = tmp_path / "pets"
    make_folder(pets, "train/Abyssinian/1.png", "train/Bengal/1.png")
    options[1] = pets
    done = bench("reproduce", "li2023/pets", *options, "--results", tmp_path)
    assert done.code == 2 and "no split 'test'" in done.err, done.err


def test_a_plan_of_an_experiment_that_cannot_be_repeated_here_says_so(tmp_path: Path) -> None:
    plan = bench("reproduce", "li2023/pets", "--offline", "--dry-run", "--results", tmp_path)
    assert plan.code == 2 and "the Hub was not asked (--offline)" in plan.out
    assert "repeat it" not in plan.out
