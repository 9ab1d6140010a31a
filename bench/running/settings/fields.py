"""All settings of a run, one field each, in the order of `bench run --help-all`."""

import re
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.contracts.backbone import Denoiser, Likelihood
from bench.contracts.parameters import Parameters
from bench.inputs.draws import DrawPlan, parse_levels, parse_plan
from bench.inputs.estimand import Loss, Space, Weighting, check_estimand, parse_weighting
from bench.inputs.subsets import Shard, parse_shard
from bench.running.settings.declaration import DENOISERS, WITH_DRAWS, Parsed, Text, setting
from bench.stats.questions import StopQuestion, parse_question

AUTO = "auto"
TF32 = "tf32"  # of `--dtype`: float32 with `--tf32`
Fit = Literal["crop", "squash"]
Control = Literal["grey", "noise", "shuffled-images", "text-only"]
Rule = Literal["best", "mean"]
Dtype = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
NoisePer = Literal["run", "image"]
Encoding = Literal["float32", "tf32"]
Latent = Literal["mean", "sample"]
Layout = Literal["auto", "contiguous", "channels-last"]
TRACKERS = ("trackio", "wandb")  # packages, and extras that install them
Attention = Literal["auto", "math", "flash", "efficient", "cudnn"]

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu")
LARGEST_SIDE = 8192  # pixels; the latents of larger images do not fit into a GPU


def _is_tracker(value: str) -> str:
    if value.partition(":")[0] not in TRACKERS:
        raise ValueError(f"must be {' or '.join(TRACKERS)}, or with a project: wandb:birds")
    return value


Tracker = Annotated[Text, AfterValidator(_is_tracker)]
_LEVELS = Parsed(parse_levels, lambda plan: str(plan).removeprefix("grid:"))
_of_errors = partial(setting, "score", scorers=DENOISERS)
_of_rows = partial(setting, "data", identity="content", passed_to="dataset")
_of_texts = partial(setting, "prompts", of_classes=True, learns=False)
_of_weights = partial(setting, "network", "prompts", identity="content")
_of_speed = partial(setting, "network", scorers=DENOISERS, identity="half", shared=True)
_of_executor = partial(setting, "machine", needs="executor", of_split=True, passed_to="executor")


def _corruption(text: str) -> str | None:
    from bench.inputs.corruptions import parse_corruption  # here: it imports PIL

    return parse_corruption(text)


class RunConfig(BaseModel):
    """The settings of a run as the user set them, validated but not resolved."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, defer_build=True
    )

    dataset: Text = setting(
        "data", "prompts", default=..., identity="content", chapter="What is scored"
    )
    """A registered dataset, a folder or file of images, a declaration (.toml), or a URI such as
    hf:owner/name."""
    split: Text | None = setting("data", identity="resolved", most_used=True)
    """The split to evaluate (default: the dataset's)."""
    data_dir: Text | None = setting("data", identity="content", commands="study", most_used=True)
    """A local copy of the dataset."""
    limit: int | None = setting(
        "images", of_split=True, commands="study", most_used=True, gt=0, lt=2**63
    )
    """Score only N images: a stratified sample, the same every time."""
    labels: Text | None = _of_rows("prompts")
    """A CSV or JSONL file that maps image files to labels, for a folder of images."""
    image_column: Text | None = _of_rows()
    """The column of the images, if a file has several (default: image)."""
    label_column: Text | None = _of_rows("prompts")
    """The column of the labels, if a file has several (default: label)."""
    id_column: Text | None = _of_rows()
    """The column with the sample ids (default: sample_id)."""
    class_names: Text | None = setting("data", "prompts", identity="content", of_classes=True)
    """A file with readable class names: JSON or CSV (name, words), or one name per line in class
    order."""
    skip_unlabelled: bool = setting("data", default=False, of_classes=True)
    """Skip images without a label instead of rejecting the dataset."""
    shard: Annotated[Shard, Parsed(parse_shard)] | None = setting(
        "one run",
        excludes={
            "slurm": "the script sets the shards itself",
            "memory": "other processes cannot load it. Save a pipeline with"
            " pipe.save_pretrained(FOLDER) and name the folder",
        },
    )
    """Score only part I of N, such as 3/16, into a separate folder; `bench results merge` joins the
    parts into one run."""
    fit: Fit = setting("images", default="crop", scorers=DENOISERS, identity="scoring")
    """How a non-square image is made square: crop (its centre), or squash (the whole image, with
    its aspect ratio changed)."""
    resolution: int | None = setting(
        "network", "prompts", identity="resolved", passed_to="backbone", gt=0, le=LARGEST_SIDE
    )
    """Image side in pixels (default: the model's own)."""
    normalize: Text | None = setting("network", identity="resolved", passed_to="backbone")
    """Pixel normalisation, for a backbone that offers a choice: half or cifar10."""
    views: Text | None = setting("images", scorers=WITH_DRAWS, identity="resolved")
    """Views of an image, among which its draws are divided: flip, turns8, crop:5 or posterior;
    `bench list views` shows all (default: the image itself)."""
    control: Control | None = setting(
        "images", identity="run", methods={"text-only": Likelihood.prior}, of_split=True
    )
    """A blind control: replace every image with grey, noise or another sample's image
    (shuffled-images), or score the texts without an image (text-only), if the backbone can."""
    corrupt: Annotated[Text, AfterValidator(_corruption)] | None = setting(
        "images", identity="run", of_split=True
    )
    """Corrupt the images as ImageNet-C does, NAME:SEVERITY: one of its fifteen corruptions, such as
    fog or gaussian-noise, with a severity from 1 to 5."""
    template: Text | list[Text] | None = _of_texts(
        identity="resolved", commands="prompts", most_used=True, chapter="What is asked"
    )
    """A prompt template with {class}, or a file of them, one per line; repeat for more (default:
    the dataset's)."""
    prompts: Text | None = _of_texts(
        identity="content",
        commands="prompts",
        excludes={"template": "the file contains complete prompts"},
    )
    """A CSV file of prompts with the columns prompt,classname,classidx; a class may have
    several."""
    template_rule: Rule = setting("score", default="best", identity="run", of_classes=True)
    """How the prompts of a class are combined into its score: best (the best prompt's score), or
    mean (of their errors)."""
    hierarchy: Text | None = setting(
        "prompts",
        identity="content",
        commands="study",
        ability="uses_hierarchy",
        excludes={
            "prompts": "the file has no prompts for inner nodes; use --template",
            "candidates_from": "a shortlist leaves out classes of the tree",
        },
    )
    """A tree of the classes, for strategies that descend one: CSV with the columns
    node,parent,words, or TOML."""
    candidates_from: Text | None = setting(
        "score",
        identity="content",
        of_split=True,
        excludes={"sweep": "a sweep records all classes"},
    )
    """A stored run on the same images; only its --top best classes per image are scored."""
    top: int = setting(
        "score", default=5, identity="content", needs="candidates_from", of_split=True, gt=1
    )
    """Number of classes per image that --candidates-from keeps."""
    backbone: Text | None = _of_weights(
        commands="study prompts", most_used=True, chapter="What scores it"
    )
    """A registered backbone, a pipeline folder, or a single .safetensors file of a pipeline
    (default: the dataset's)."""
    weights: Text | None = _of_weights(commands="study prompts")
    """A Hub id, a folder or a single .safetensors file, instead of the backbone's own weights."""
    lora: Text | list[Text] | None = _of_weights(scorers=DENOISERS)
    """A LoRA to add to the pipeline, PATH or PATH:SCALE (default scale: 1); repeat for more."""
    revision: Text | None = _of_weights(commands="prompts")
    """The Hub revision of the weights."""
    dtype: Dtype | None = setting("network", "prompts", identity="resolved", commands="study")
    """The precision of the network; errors are always float32. auto, the default: on a GPU the half
    precision that the model was made for or else tf32, and elsewhere float32."""
    encoding: Encoding | None = setting("network", scorers=DENOISERS, identity="resolved")
    """The precision in which images are encoded if the network has half precision (default: tf32 on
    a GPU that has it, and elsewhere float32)."""
    fit_split: Text | None = setting("network", identity="content", learns=True)
    """The split that a trainable backbone is fitted on (default: train)."""
    loss: Loss = _of_errors(default="l2", identity="resolved", chapter="How an error is measured")
    """The loss between prediction and target that gives a cell's error."""
    space: Space = _of_errors(default="prediction", identity="resolved")
    """The space in which the error is measured; prediction: that of the model's output."""
    weighting: Annotated[Weighting, Parsed(parse_weighting)] = _of_errors(
        default=Weighting(), identity="resolved", fits=check_estimand
    )
    """The weight of each noise level: uniform, snr, exp:-7 or min-snr:5 (weights of the x_0 error),
    learned:RUN, or a CSV file level,weight."""
    guidance: float | None = _of_errors(
        "prompts", identity="scoring", methods={"": Denoiser.encode_null}, allow_inf_nan=False
    )
    """The scale of classifier-free guidance, for a backbone with a null conditioning; costs one
    more evaluation per draw of a request (default: no guidance)."""
    subtract_null: bool = _of_errors(
        "prompts",
        default=False,
        identity="scoring",
        ability="same_draws",
        methods={"": Denoiser.encode_null},
        of_split=True,
    )
    """Subtract the error of the empty prompt. This affects comparisons across images only, never
    the choice among the texts of one image."""
    latent: Latent = _of_errors(
        default="mean",
        identity="scoring",
        methods={"sample": Denoiser.posterior},
        excludes={"latents": "these views are samples of the latent already"},
    )
    """The latent of an image: the mean of the autoencoder's posterior, or a sample."""
    levels: Annotated[DrawPlan, _LEVELS] | None = _of_errors(identity="resolved")
    """The noise levels of the draws: a half-open range such as 100-700, a list such as
    32,65,98, or grid for all of them (default: the backbone's, or all)."""
    noise: Text | None = _of_errors(
        identity="content",
        excludes={
            "plan=antithetic": "antithetic noise is generated from the seed",
            "noise_per": "the noise of an image is generated from the seed",
        },
    )
    """A file with the noise of the draws, float32 (N, C, H, W), instead of --seed."""
    noise_per: NoisePer = _of_errors(default="run", identity="resolved")
    """Whether all images share the noise of a draw (run), or each has its own (image)."""
    plan: Annotated[DrawPlan, Parsed(parse_plan)] | None = _of_errors(identity="resolved")
    """How draws are paired: grid (unpaired), repeated or antithetic (default: the backbone's, or
    grid)."""
    seed: int = setting(
        "score", default=0, scorers=WITH_DRAWS, identity="resolved", shared=True, ge=0, lt=2**63
    )
    """The seed of all that a run draws at random: the noise, and the order of draws."""
    strategy: Text | None = setting(
        "strategy", identity="resolved", commands="study", most_used=True, chapter="How it decides"
    )
    """A registered strategy (default: the backbone's)."""
    params: Parameters = setting(
        "strategy", default={}, identity="resolved", commands="study", most_used=True
    )
    """A parameter of the strategy or the backbone, KEY=VALUE; repeat for more."""
    risk: float | None = setting(
        "strategy",
        scorers=WITH_DRAWS,
        identity="content",
        excludes={"classes": "a risk is calibrated on other images of a dataset; use --dataset"},
        gt=0,
        lt=1,
    )
    """The largest share of decisions that may differ from the full sweep's, such as 0.02. The
    strategy's parameters are chosen by a calibration on other images (`bench learn`) or,
    without one, by sweeping some of the run's own images."""
    risk_else: Literal["full", "schedule"] = setting(
        "strategy", default="full", identity="content", needs="risk", of_split=True
    )
    """Fallback of --risk if no parameters keep it: what decides the images that were not swept,
    full (every prompt on every draw) or schedule (the published schedule, without a promise)."""
    device: Text | None = setting("machine", "network", chapter="Where it runs")
    """The device, such as cpu, cuda, cuda:1 or mps (default: the best of this machine)."""
    batch_size: Annotated[int, Field(gt=0, lt=2**20)] | Literal["auto"] = setting(
        "machine", default="auto"
    )
    """Cells (image, draw, prompt) per batch; auto: measured once, then cached."""
    executor: Text = setting(
        "machine",
        default="local",
        of_split=True,
        excludes={
            "slurm": "the script makes shards of one process each; docs/machines.md says how Ray"
            " is started under Slurm"
        },
    )
    """Where images are scored: a registered executor, such as local (in this process) or ray."""
    workers: Annotated[int, Field(gt=0, lt=2**16)] | Literal["auto"] | None = _of_executor()
    """Number of workers; auto: one per GPU, or one per machine if there are no GPUs (default:
    auto)."""
    ray_address: Text | None = _of_executor()
    """The Ray cluster: auto (the one running on this machine) or HOST:PORT (default: a new one on
    this machine)."""
    offline: bool = setting("machine", default=False)
    """Do not use the network, only files on this machine."""
    tf32: bool = setting(
        "network", "prompts", default=False, scorers=DENOISERS, identity="precision", shared=True
    )
    """Allow a GPU to compute float32 products in TF32; alone it is --dtype tf32."""
    compile: bool = _of_speed(default=False)
    """Compile the network with torch.compile; takes a minute or more before the first image."""
    layout: Layout = _of_speed(default="auto")
    """Memory layout of the network (auto: channels-last on a GPU)."""
    attention: Attention = _of_speed(default="auto")
    """The attention kernel (auto: chosen by torch)."""
    offload: Literal["model"] | None = setting(
        "machine",
        "network",
        scorers=DENOISERS,
        excludes={
            "compile": "the memory of its tensors changes",
            "memory": "call pipe.enable_model_cpu_offload() before",
        },
    )
    """Keep the parts of a model on the CPU while they are not used, for a GPU with little memory:
    model (network, autoencoder and text encoders take turns)."""
    results: Text = setting("machine", default="results", chapter="What is kept")
    """The folder that runs are stored in."""
    note: Text | None = setting("record")
    """A note that is shown with the run; it changes no results."""
    tag: Text | list[Text] | None = setting("record")
    """A tag to find runs by (`bench runs --tag`); repeat for more."""
    tracker: Tracker | list[Tracker] | None = setting("machine", of_split=True)
    """Log the run with trackio or wandb, as NAME or NAME:PROJECT (default project: bench); repeat
    for both."""
    save_errors: bool = setting("record", default=False, commands="study")
    """Store the error of every evaluated cell (image, draw, prompt)."""
    again: int | None = setting(
        "one run",
        scorers=WITH_DRAWS,
        excludes={"noise": "the file fixes the noise", "shard": "merge the shards first"},
        gt=0,
        lt=2**31,
    )
    """Decide N randomly chosen images again with other noise, to measure how many decisions change.
    Stored results stay as they are."""
    audit: int | None = setting("one run", scorers=WITH_DRAWS, gt=0, lt=2**31)
    """Also run a full sweep (every prompt on every draw) on N random images among those that took
    fewer evaluations, to measure how many decisions agree. Stored results stay as they are."""
    until: Annotated[StopQuestion, Parsed(parse_question, attrgetter("text"))] | None = setting(
        "one run",
        excludes={
            "shard": "a shard does not see the results of the others",
            "limit": "the question ends the run, not a number of images",
            "sweep": "the swept images are not the first in its random order",
        },
    )
    """Score images in random order until a question is answered: "differs from RUN", "better than
    RUN by 0.02", "within 0.02 of RUN" or "width 0.05"."""
    fresh: bool = setting(
        "one run", default=False, excludes={"slurm": "each task of the script would start over"}
    )
    """Start over instead of resuming a stored run."""
    min_accuracy: float | None = setting("one run", ge=0, le=1)
    """Exit with code 4 if the accuracy is lower."""

    @model_validator(mode="before")
    @classmethod
    def _with_plain_dtype(cls, values: Any) -> Any:
        dtype = values.get("dtype")
        if dtype == TF32:
            return {**values, "dtype": "float32", "tf32": True}
        return {**values, "dtype": None} if dtype == AUTO else values

    @field_validator("guidance")
    @classmethod
    def _without_unit_scale(cls, value: float | None) -> float | None:
        return None if value == 1 else value  # scale 1 is the unguided prediction

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", value):
            raise ValueError(
                f"must be one of {', '.join(DEVICES)}, optionally with an index such as cuda:1"
            )
        return value
