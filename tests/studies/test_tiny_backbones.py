"""The recipes of the included backbones, and short trainings by them."""

import json
from pathlib import Path

import data
import pytest
import train
from click.testing import CliRunner
from data import Settings, read_recipe
from diffusers import AutoencoderKL
from helpers.command import bench
from helpers.places import UCMERCED
from networks import WEIGHTS, TextDenoiser

import bench as toolkit

RECIPES = ("digits", "landuse")
STEPS = 2  # of each phase of a short training


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Settings:
    """A recipe as it is."""
    return read_recipe(request.param)


def test_recipes_build_the_networks_that_are_included(recipe: Settings) -> None:
    model = TextDenoiser(recipe)
    built = {
        "vae": AutoencoderKL(**recipe.networks["vae"]).config,
        "unet": model.unet.config,
        "text_encoder": model.text_encoder.config.to_dict(),
        "scheduler": model.scheduler.config,
    }
    # Learned, or noted by the library that saved the files; None is the width that is written out.
    other = {"scaling_factor", "dtype", "transformers_version", "architectures"}
    for name, config in built.items():
        (file,) = (WEIGHTS / f"tiny_{recipe.name}" / name).glob("*config.json")
        included = json.loads(file.read_text("utf-8"))
        for key in included.keys() - other:
            if not key.startswith("_"):
                value = config[key]
                assert (list(value) if isinstance(value, tuple) else value) == included[key], key


def test_default_prompts_are_those_of_the_toolkit(recipe: Settings) -> None:
    assert recipe.captions.prompts == toolkit.prompts(recipe.dataset)


def test_digits_are_split_as_the_model_card_says() -> None:
    recipe = read_recipe("digits")
    parts, again = data.load(recipe, None), data.load(recipe, None)
    assert [len(part.images) for part in parts.values()] == [1293, 144, 360]
    assert parts["validation"].rows["sample_id"] == again["validation"].rows["sample_id"]
    ids = [set(part.rows["sample_id"]) for part in parts.values()]
    assert len(set.union(*ids)) == 1797


def short(name: str) -> Settings:
    """Return a recipe with a few steps per phase, its networks and data unchanged."""
    recipe = read_recipe(name)
    for settings in (recipe, *recipe.contrasts):
        settings.steps = STEPS
    recipe.vae_steps = recipe.views = recipe.judge_steps = recipe.sample_steps = STEPS
    recipe.strategies = {"full": {"draws": 1}, "adaptive": {"samples": [1, 2], "keep": [3, 1]}}
    return recipe


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_short_training_makes_a_backbone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "landuse" and not UCMERCED.is_dir():
        pytest.skip(f"no UC Merced at {UCMERCED}; set BENCH_TEST_UCMERCED")
    folder = [] if name == "digits" else ["--data-dir", str(UCMERCED)]
    monkeypatch.setattr(train, "read_recipe", short)
    out = tmp_path / "trained"
    made = CliRunner().invoke(train.main, [name, str(out), *folder], catch_exceptions=False)
    assert made.exit_code == 0
    card, recipe = (out / "README.md").read_text("utf-8"), short(name)
    assert f"Trained on {recipe.dataset}/train" in card and "| test |" not in card
    assert "| validation | adaptive, samples=1,2, keep=3,1, plan grid" in card
    assert "| validation | full, draws=1, plan grid" in card and card.endswith("losses.\n")
    assert (out / "samples.png").is_file()
    assert card.count(f"* {STEPS} steps") == len(recipe.contrasts)
    log = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    denoisers = [f"denoiser-{number}" for number in range(1 + len(recipe.contrasts))]
    assert [line["phase"] for line in log] == ["autoencoder", *denoisers, "judge"]

    run = ("run", recipe.dataset, *folder, "--backbone", f"{out}/", "--limit", "5", "--json")
    done = bench(*run, "--results", tmp_path, "--strategy", "full", "--set", "draws=1")
    assert done.code == 0, done.err
    assert done.json["dataset"]["n_samples"] == 5
