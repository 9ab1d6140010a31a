"""One definition of every setting of a run.

The command line's options, the `BENCH_*` variables, the config file, the manifest and the docs
are all made from `RunConfig`. Precedence: option > variable > file > default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bench.contracts.parameters import Parameters
from bench.errors import UserError, did_you_mean
from bench.inputs.draws import parse_levels, parse_plan
from bench.inputs.estimand import Space, check_estimand, parse_weighting
from bench.inputs.losses import Loss
from bench.inputs.subsets import parse_shard
from bench.machine.toml import read_toml
from bench.running.scope import For

Rule = Literal["best", "mean", "spread"]
NoisePer = Literal["run", "image"]
Latent = Literal["mean", "sample"]
Fit = Literal["crop", "squash"]
Control = Literal["grey", "noise", "shuffled-images", "text-only"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Layout = Literal["auto", "contiguous", "channels-last"]
Executors = Literal["local", "ray"]
Attention = Literal["auto", "math", "flash", "efficient", "cudnn"]

MOST_PIXELS = 8192  # a side; the latents of larger images do not fit into a GPU
DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu")
SHOWN = 60  # characters of a wrong value in a message


def _of_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain the character NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not text: it contains half of a surrogate pair") from None
    return value


Text = Annotated[str, BeforeValidator(_of_path), AfterValidator(_is_text)]


# Settings that are parameters of the dataset, where it has them.
DATA_PARAMETERS = ("labels", "image_column", "label_column", "id_column")
DATA_SETTINGS = ("split", *DATA_PARAMETERS, "class_names", "skip_unlabelled")


class RunConfig(BaseModel):
    """The settings of a run, each with its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: Text = Field(
        description="A registered dataset, a folder or file of images, a declaration (.toml), or"
        " hf:owner/name and the like."
    )
    backbone: Text | None = Field(
        None, description="A registered backbone, or a pipeline folder (default: the dataset's)."
    )
    strategy: Text | None = Field(
        None, description="A registered strategy (default: the backbone's)."
    )
    params: Parameters = Field(
        default_factory=dict,
        description="A parameter of the strategy or the backbone, KEY=VALUE; repeat for more.",
    )
    risk: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="The largest share of decisions that may differ from those of the full sweep,"
        " such as 0.02: chooses the strategy's parameters by a calibration on other images (`bench"
        " calibrate`).",
    )
    split: Text | None = Field(None, description="The split to evaluate (default: the dataset's).")
    fit_split: Text | None = Field(
        None, description="The split that a backbone which learns is fitted on (default: train)."
    )
    data_dir: Text | None = Field(None, description="A local copy of the dataset.")
    labels: Text | None = Field(
        None,
        description="A CSV or JSONL file of image files and their labels, for a folder of images.",
    )
    image_column: Text | None = Field(
        None, description="The column of the images, where a file has several (default: image)."
    )
    label_column: Text | None = Field(
        None, description="The column of the labels, where a file has several (default: label)."
    )
    id_column: Text | None = Field(
        None, description="The column of ids that become the sample ids (default: sample_id)."
    )
    class_names: Text | None = Field(
        None,
        description="A file that says the classes in words: JSON or CSV (name, words), or a list.",
    )
    skip_unlabelled: bool = Field(
        False, description="Leave images without a label out instead of refusing them."
    )
    weights: Text | None = Field(
        None, description="A Hub id or a folder, instead of the backbone's own weights."
    )
    revision: Text | None = Field(None, description="The Hub revision of the weights.")
    template: Text | list[Text] | None = Field(
        None,
        description="A prompt template with {class}, or a file of them, one per line; repeat for"
        " more (default: the dataset's).",
    )
    template_rule: Rule = Field(
        "best",
        description="How several prompts of a class make its score: best (of their scores), mean"
        " (of their errors), or spread (each draw uses one of them).",
    )
    prompts: Text | None = Field(
        None,
        description="A CSV file of prompts: prompt,classname,classidx; several per class allowed.",
    )
    normalize: Text | None = Field(
        None, description="Pixel normalisation where a backbone offers a choice: half or cifar10."
    )
    resolution: int | None = Field(
        None,
        gt=0,
        le=MOST_PIXELS,
        description="Image side in pixels (default: the model's own).",
    )
    fit: Annotated[Fit, For()] = Field(
        "crop",
        description="How an image that is not square is fitted: crop (its middle), or squash (all"
        " of it, at another aspect ratio).",
    )
    loss: Annotated[Loss, For()] = Field("l2", description="How a cell's error is measured.")
    space: Annotated[Space, For()] = Field(
        "prediction", description="The space the error is measured in; prediction: the model's own."
    )
    weighting: Annotated[Text, For()] = Field(
        "uniform",
        description="How much a noise level counts: uniform, snr, exp:-7 or min-snr:5 (weights of"
        " the x_0 error), learned:RUN, or a CSV file level,weight.",
    )
    guidance: Annotated[float | None, For()] = Field(
        None,
        allow_inf_nan=False,
        description="Weight of classifier-free guidance, for a backbone with a null conditioning;"
        " costs one more evaluation per cell (default: none).",
    )
    subtract_null: Annotated[bool, For()] = Field(
        False,
        description="Subtract the error of the empty prompt. Only for comparisons between images:"
        " among the texts of one image it changes no decision.",
    )
    views: Annotated[Text | None, For(("denoiser", "likelihood"))] = Field(
        None,
        description="Views of an image, over which its draws are spread: flip, turns8, crop:5 or"
        " posterior; `bench list views` shows all (default: the image itself).",
    )
    control: Control | None = Field(
        None,
        description="A blind control: the same questions, with the image replaced by grey, by"
        " noise, or by another sample's image (shuffled-images); or the texts alone (text-only),"
        " where the backbone can score a text without an image.",
    )
    candidates_from: Text | None = Field(
        None,
        description="A stored run on the same images: only its best classes of each image are"
        " scored, --top of them.",
    )
    top: int = Field(
        5, gt=1, description="How many classes of --candidates-from are scored for each image."
    )
    limit: int | None = Field(
        None,
        gt=0,
        lt=2**63,
        description="Score only N images: stratified, and the same ones every time.",
    )
    shard: Text | None = Field(
        None,
        description="Score only the I-th of N parts, such as 3/16, into a folder of its own;"
        " `bench results merge` makes one run of all parts.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="The seed of the noise.")
    noise: Annotated[Text | None, For()] = Field(
        None, description="A file with the draws' noise, float32 (N, C, H, W), instead of the seed."
    )
    noise_per: Annotated[NoisePer, For()] = Field(
        "run", description="Whether all images share the noise of a draw, or each has its own."
    )
    latent: Annotated[Latent, For()] = Field(
        "mean",
        description="The latent of an image: the mean of the autoencoder's posterior, or a sample.",
    )
    plan: Annotated[Text | None, For()] = Field(
        None,
        description="How draws are paired: grid (not at all), repeated or antithetic (default: the"
        " backbone's, or grid).",
    )
    levels: Annotated[Text | None, For()] = Field(
        None,
        description="The noise levels that draws are made on: a half-open range such as 100-700, a"
        " list such as 32,65,98, or grid for all of them (default: the backbone's, or all).",
    )
    batch_size: Annotated[int, Field(gt=0, lt=2**20)] | Literal["auto"] = Field(
        "auto", description="Cells per batch; auto: measured once on this machine, and remembered."
    )
    dtype: Dtype | None = Field(
        None,
        description="The model's dtype; errors are float32 always. auto: bfloat16 where the model"
        " was trained in it and the GPU has it, else float32 (default: the backbone's, mostly"
        " float32).",
    )
    device: Text | None = Field(
        None, description="cpu, cuda, cuda:1, mps (default: the best one here)."
    )
    tf32: Annotated[bool, For(shared=True)] = Field(
        False, description="Let a GPU round float32 products to TF32."
    )
    compile: Annotated[bool, For(shared=True)] = Field(
        False, description="Compile the network: a minute or more before the first image."
    )
    layout: Annotated[Layout, For(shared=True)] = Field(
        "auto", description="Memory layout of the network (auto: channels-last on a GPU)."
    )
    attention: Annotated[Attention, For(shared=True)] = Field(
        "auto", description="The attention kernel (auto: what torch chooses)."
    )
    executor: Executors = Field(
        "local", description="Where images are scored: in this process, or by workers of Ray."
    )
    workers: Annotated[int, Field(gt=0, lt=2**16)] | Literal["auto"] | None = Field(
        None,
        description="How many workers of Ray; auto: one per GPU, and without any, one per machine"
        " (default: auto).",
    )
    ray_address: Text | None = Field(
        None,
        description="The Ray cluster: auto (the one of this machine) or HOST:PORT (default: a Ray"
        " of its own on this machine).",
    )
    save_errors: bool = Field(False, description="Keep the error of every cell evaluated.")
    offline: bool = Field(False, description="Use no network: only what is on this machine.")
    results: Text = Field("results", description="The folder that runs are stored in.")
    fresh: bool = Field(False, description="Start over instead of resuming a stored run.")
    min_accuracy: float | None = Field(
        None, ge=0, le=1, description="Exit with 4 when the accuracy is lower."
    )

    @field_validator("batch_size", "workers", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        """A command line and a variable give text, since `auto` is one."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", value):
            raise ValueError(f"must be one of {', '.join(DEVICES)}, perhaps with a number")
        return value

    @field_validator("shard")
    @classmethod
    def _is_shard(cls, value: str | None) -> str | None:
        return None if value is None else str(parse_shard(value))

    @field_validator("plan")
    @classmethod
    def _is_plan(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and parse_plan(value).name == "antithetic" and info.data.get("noise"):
            raise ValueError("antithetic noise is made from the seed, and --noise gives it")
        return value

    @field_validator("noise_per")
    @classmethod
    def _is_made_here(cls, value: str, info: ValidationInfo) -> str:
        if value == "image" and info.data.get("noise"):
            raise ValueError("noise per image is made from the seed, and --noise gives it")
        return value

    @field_validator("weighting")
    @classmethod
    def _is_weighting(cls, value: str, info: ValidationInfo) -> str:
        loss, space = info.data.get("loss", "l2"), info.data.get("space", "prediction")
        check_estimand(loss, space, parse_weighting(value))
        return value

    @field_validator("guidance")
    @classmethod
    def _guides(cls, value: float | None) -> float | None:
        return None if value == 1 else value  # the prediction itself

    @field_validator("levels")
    @classmethod
    def _are_levels(cls, value: str | None) -> str | None:
        if value is not None:
            parse_levels(value)
        return value


def make_config(settings: Mapping[str, Any]) -> RunConfig:
    """Validate settings; None means not given.

    Raises:
        UserError: an unknown setting or an impossible value.
    """
    for key in settings:
        if key not in RunConfig.model_fields:
            raise UserError(
                f"Unknown setting {key!r}.{did_you_mean(key, RunConfig.model_fields)}"
                " `bench run --help` shows all of them."
            )
    try:
        return RunConfig(**{key: value for key, value in settings.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        said = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        given = repr(first["input"])
        given = given if len(given) <= SHOWN else f"{given[:SHOWN]} …"
        raise UserError(f"{name}: {said} (given: {given}).") from None


def read_config_file(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, parameters in a table `[params]`.

    Raises:
        UserError: the file is missing, not TOML, or has an unknown setting.
    """
    if not path.is_file():
        raise UserError(f"--config: there is no file {path}.")
    settings = read_toml(path, "--config")
    for key in settings:
        if key not in RunConfig.model_fields:
            raise UserError(
                f"--config: {path} has the unknown setting {key!r}."
                f"{did_you_mean(key, RunConfig.model_fields)}"
            )
    return settings


def differing(config: RunConfig, *names: str) -> dict[str, Any]:
    """Return the settings that are not at their default, which an identity leaves out."""
    fields = RunConfig.model_fields
    return {
        name: value for name in names if (value := getattr(config, name)) != fields[name].default
    }
