"""What is scored: the images, and how they are seen."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from bench.inputs.subsets import parse_shard
from bench.running.parts.setting import DENOISERS, WITH_DRAWS, Part, Text, setting

Fit = Literal["crop", "squash"]
Control = Literal["grey", "noise", "shuffled-images", "text-only"]

LARGEST_SIDE = 8192  # pixels; the latents of larger images do not fit into a GPU

# Settings that are parameters of the dataset, where it has them.
DATA_PARAMETERS = ("labels", "image_column", "label_column", "id_column")
DATA_SETTINGS = ("split", *DATA_PARAMETERS, "class_names", "skip_unlabelled")


class DataSettings(Part):
    """The images of a run, and how they are seen."""

    title = "What is scored"

    dataset: Text = setting(
        ...,
        "A registered dataset, a folder or file of images, a declaration (.toml), or"
        " hf:owner/name and the like.",
        identity="content",
    )
    split: Text | None = setting(
        None, "The split to evaluate (default: the dataset's).", identity="resolved", most_used=True
    )
    data_dir: Text | None = setting(
        None, "A local copy of the dataset.", identity="content", most_used=True
    )
    limit: int | None = setting(
        None,
        "Score only N images: stratified, and the same ones every time.",
        most_used=True,
        gt=0,
        lt=2**63,
    )
    labels: Text | None = setting(
        None,
        "A CSV or JSONL file of image files and their labels, for a folder of images.",
        identity="content",
    )
    image_column: Text | None = setting(
        None,
        "The column of the images, where a file has several (default: image).",
        identity="content",
    )
    label_column: Text | None = setting(
        None,
        "The column of the labels, where a file has several (default: label).",
        identity="content",
    )
    id_column: Text | None = setting(
        None,
        "The column of ids that become the sample ids (default: sample_id).",
        identity="content",
    )
    class_names: Text | None = setting(
        None,
        "A file that says the classes in words: JSON or CSV (name, words), or a list.",
        identity="content",
    )
    skip_unlabelled: bool = setting(
        False, "Leave images without a label out instead of refusing them."
    )
    shard: Text | None = setting(
        None,
        "Score only the I-th of N parts, such as 3/16, into a folder of its own;"
        " `bench results merge` makes one run of all parts.",
    )
    fit: Fit = setting(
        "crop",
        "How an image that is not square is fitted: crop (its middle), or squash (all"
        " of it, at another aspect ratio).",
        DENOISERS,
        identity="scoring",
        classify=True,
    )
    resolution: int | None = setting(
        None,
        "Image side in pixels (default: the model's own).",
        identity="resolved",
        classify=True,
        gt=0,
        le=LARGEST_SIDE,
    )
    normalize: Text | None = setting(
        None,
        "Pixel normalisation where a backbone offers a choice: half or cifar10.",
        identity="resolved",
        classify=True,
    )
    views: Text | None = setting(
        None,
        "Views of an image, over which its draws are spread: flip, turns8, crop:5 or"
        " posterior; `bench list views` shows all (default: the image itself).",
        WITH_DRAWS,
        identity="resolved",
    )
    control: Control | None = setting(
        None,
        "A blind control: the same questions, with the image replaced by grey, by"
        " noise, or by another sample's image (shuffled-images); or the texts alone (text-only),"
        " where the backbone can score a text without an image.",
        identity="run",
    )

    @field_validator("shard")
    @classmethod
    def _is_shard(cls, value: str | None) -> str | None:
        return None if value is None else str(parse_shard(value))
