"""First-party datasets. Each loads a split as a `datasets.Dataset` with image and label columns."""

from collections.abc import Callable
from importlib.resources import files

from bench import hookimpl, register_toml
from bench.contracts.specs import COLUMN_PARAMETERS, Parameter
from bench.discovery import declared
from bench.machine.files import read_toml

_SOURCE = Parameter("", "what follows the colon")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_PHRASES = read_toml(files(__package__) / "ucmerced_phrases.toml")
UCMERCED_PHRASES = {name: str(phrase) for name, phrase in _PHRASES.items()}


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Register the datasets."""
    register(
        "digits",
        target="bench_plugins.datasets.digits:Digits",
        summary="scikit-learn's 1,797 handwritten digits, 8×8 pixels; nothing to download",
        classes=_DIGITS,
        template="a handwritten digit {class}",
        splits={"test": 360, "train": 1437},
        split="test",
        backbone="tiny-digits",
        homepage="https://archive.ics.uci.edu/dataset/80",
        takes_data_dir=False,
        stored_in="package",
    )
    register(
        "folder",
        target="bench_plugins.datasets.folder:Folder",
        summary="images in folders, in a table, parquet or tars: bench run ./my-images",
        template="a photo of a {class}",
        paths=True,
        parameters={
            "labels": Parameter(None, "a CSV or JSONL file of image files and their labels"),
            **COLUMN_PARAMETERS,
        },
    )
    register_toml(register, __name__, "declared")
    register(
        "hf",
        target="bench_plugins.datasets.hub:Hub",
        summary="any dataset of the Hugging Face Hub: bench run hf:owner/name",
        parameters={**COLUMN_PARAMETERS, "source": _SOURCE},
        template="a photo of a {class}",
        homepage="https://huggingface.co/datasets",
        scheme=True,
    )
    register(
        "torchvision",
        target="bench_plugins.datasets.vision:TorchVision",
        summary="a dataset of torchvision: bench run torchvision:Flowers102",
        parameters={"source": _SOURCE},
        template="a photo of a {class}",
        extra="diffusion-classifier-bench[torchvision]",
        homepage="https://docs.pytorch.org/vision/stable/datasets.html",
        scheme=True,
    )
    register(
        "ucmerced",
        target="bench_plugins.datasets.ucmerced:UCMerced",
        summary="UC Merced Land Use: 2,100 aerial images, 256×256 pixels",
        classes=tuple(UCMERCED_PHRASES),
        phrases=UCMERCED_PHRASES,
        template="a satellite photo of {class}",
        splits={"test": 420, "train": 1680, "validation": 168},
        within={"validation": "train"},
        duplicates={"train": 1},
        split="test",
        backbone="tiny-landuse",
        stored_in="folder",
        homepage="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
    )


@hookimpl
def register_collections(register: Callable[..., None]) -> None:
    """Register the collections."""
    declared.register_collections(register, __name__, "collections.toml")


@hookimpl
def register_studies(register: Callable[..., None]) -> None:
    """Register the published experiments on these datasets."""
    declared.register_studies(register, __name__, "studies")
