"""Two runs that differ in one setting share exactly what its declaration says they share."""

from pathlib import Path

import pytest
from helpers.captions import two_images
from helpers.given import Given
from helpers.refusals import refused
from helpers.setting_values import BASE, COMPANIONS, NAMES, PAIRS, filled, make_files

from bench.running.classify import classify
from bench.running.content import PreparedRun
from bench.running.parts.settings import SETTINGS, RunConfig, make_config
from bench.running.prepare import prepare
from bench.store.formats.identity import digest

# A risk needs a calibration, and a revision the Hub: `test_identity` has their effect on it.
ELSEWHERE = {"risk", "risk_else", "revision"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all files that the settings name."""
    return make_files(tmp_path_factory.mktemp("declarations"))


@pytest.fixture(autouse=True)
def items(captions: None) -> None:
    Given.rows = two_images()


def both(name: str, root: Path) -> tuple[RunConfig, RunConfig]:
    """Return the settings of two runs that differ only in the setting `name`."""
    shared = {**BASE, "split": "test", **COMPANIONS.get(name, {})}
    if shared["dataset"] != BASE["dataset"]:
        del shared["split"]
    one, other = (
        make_config({key: filled(v, root) for key, v in {**shared, name: value}.items()})
        for value in PAIRS[name]
    )
    return one, other


def identity(prepared: PreparedRun) -> str:
    return digest(prepared.manifest.identity)


def test_every_setting_has_two_values() -> None:
    assert PAIRS.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"revision"}))
def test_runs_share_what_the_declaration_says(name: str, root: Path) -> None:
    declared = SETTINGS[name]
    one, other = map(prepare, both(name, root))
    differ = {
        "network": one.names.backbone.learns
        or one.content.backbone_key != other.content.backbone_key,
        "prompts": one.content.kind.text_files(one.content)
        != other.content.kind.text_files(other.content),
        "data": one.config.key_of("data") != other.config.key_of("data"),
    }
    assert differ == {subject: subject in declared.about for subject in differ}
    if name not in ELSEWHERE:
        assert (identity(one) != identity(other)) == (declared.identity not in (None, "half"))
    if "data" not in declared.about:
        assert one.split is not None and other.split is not None
        assert one.split.fingerprint == other.split.fingerprint


@pytest.mark.parametrize("name", [n for n in SETTINGS if SETTINGS[n].identity == "half"])
def test_what_only_rounds_differently_counts_in_half_precision(name: str, root: Path) -> None:
    half = (config.model_copy(update={"dtype": "bfloat16"}) for config in both(name, root))
    one, other = map(prepare, half)
    assert identity(one) != identity(other)


@pytest.mark.parametrize("name", [n for n in SETTINGS if not SETTINGS[n].in_classify])
def test_pictures_are_not_classified_with_a_setting_of_splits(name: str, root: Path) -> None:
    _, config = both(name, root)
    with refused("--", "split"):
        classify(config, ["picture.png"], NAMES)
