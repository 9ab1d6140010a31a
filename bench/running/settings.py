"""One definition of every setting of a run.

The command line's options, the `BENCH_*` variables, the config file, the manifest and the docs
are all made from `RunConfig`. Precedence: option > variable > file > default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bench.errors import UserError, did_you_mean
from bench.inputs.draws import parse_plan

Loss = Literal["l2", "l1", "huber"]
Space = Literal["prediction", "epsilon", "sample", "v"]
Dtype = Literal["float32", "bfloat16", "float16"]
Layout = Literal["auto", "contiguous", "channels-last"]
Attention = Literal["auto", "math", "flash", "efficient", "cudnn"]


class RunConfig(BaseModel):
    """The settings of a run, each with its help."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="A registered dataset, or a folder of images or parquet.")
    backbone: str | None = Field(
        None, description="A registered backbone, or a pipeline folder (default: the dataset's)."
    )
    strategy: str | None = Field(
        None, description="A registered strategy (default: the backbone's)."
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="A strategy's parameter, KEY=VALUE; repeat for more."
    )
    split: str | None = Field(None, description="The split to evaluate (default: the dataset's).")
    data_dir: str | None = Field(None, description="A local copy of the dataset.")
    weights: str | None = Field(
        None, description="A Hub id or folder instead of the backbone's own."
    )
    revision: str | None = Field(None, description="The Hub revision of the weights.")
    template: str | None = Field(None, description="A prompt template with {class}.")
    prompts: str | None = Field(
        None,
        description="A CSV file of prompts: prompt,classname,classidx; several a class allowed.",
    )
    normalize: str | None = Field(
        None, description="Pixel normalisation where a backbone offers a choice: half or cifar10."
    )
    resolution: int | None = Field(
        None, gt=0, description="Image side in pixels (default: the model's own)."
    )
    loss: Loss = Field("l2", description="How a cell's error is measured.")
    space: Space = Field(
        "prediction", description="The space the error is measured in; prediction: the model's own."
    )
    limit: int | None = Field(
        None, gt=0, description="Score only N images: stratified, and the same ones every time."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the draws' noise.")
    noise: str | None = Field(
        None, description="A file with the draws' noise, float32 (N, C, H, W), instead of the seed."
    )
    plan: str | None = Field(
        None,
        description="The draw plan: grid, repeated or antithetic, perhaps on some timesteps only,"
        " as in grid:100-700 (default: the backbone's, or grid).",
    )
    batch_size: PositiveInt | Literal["auto"] = Field(
        "auto", description="Cells a batch; auto: measured once on this machine, and remembered."
    )
    dtype: Dtype = Field("float32", description="The model's dtype; errors are float32 always.")
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1, mps (default: the best there)."
    )
    tf32: bool = Field(False, description="Let a GPU round float32 products to TF32.")
    compile: bool = Field(
        False, description="Compile the network: a minute or more before the first image."
    )
    layout: Layout = Field(
        "auto", description="Memory layout of the network (auto: channels-last on a GPU)."
    )
    attention: Attention = Field(
        "auto", description="The attention kernel (auto: what torch chooses)."
    )
    save_errors: bool = Field(False, description="Keep the error of every cell evaluated.")
    results: str = Field("results", description="The folder that runs are stored in.")
    fresh: bool = Field(False, description="Start over instead of going on with a stored run.")
    min_accuracy: float | None = Field(
        None, ge=0, le=1, description="Exit with 4 when the accuracy is lower."
    )

    @field_validator("dataset", "backbone", "strategy")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("plan")
    @classmethod
    def _is_plan(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and parse_plan(value).name == "antithetic" and info.data.get("noise"):
            raise ValueError("antithetic noise is made from the seed, and --noise gives it")
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
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name}: {said} (given: {first['input']!r}).") from None


def read_config_file(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, parameters in a table `[params]`.

    Raises:
        UserError: the file is missing, not TOML, or has an unknown setting.
    """
    if not path.is_file():
        raise UserError(f"--config: there is no file {path}.")
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config: {path} is not a TOML file: {error}.") from None
    for key in settings:
        if key not in RunConfig.model_fields:
            raise UserError(
                f"--config: {path} has the unknown setting {key!r}."
                f"{did_you_mean(key, RunConfig.model_fields)}"
            )
    return settings
