"""Find the classes of a pipeline's components, and make those without tensors as libraries do."""

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, Weights
from bench.machine.libraries.private_diffusers import kept_in_float32
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._weights.checkpoint import (
    explained,
    first_line,
    from_library,
    is_lora,
    lora_alone,
)

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PIPELINE_INDEX, CONFIG = "model_index.json", "config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
AUTOENCODER = "vae"
NETWORKS = ("transformer", "unet")  # names of the denoising network in a pipeline
EMBEDDINGS = "0.0"  # leaf of a conditioning: the first value that the pipeline returns
OLDER_CLASS = "Transformer2DModel"  # class of DiT and PixArt in files made before diffusers 0.29
# Components that process generated images. None are generated here.
IMAGE_COMPONENTS = ("safety_checker", "feature_extractor", "image_encoder", "add_watermarker")
MAX_STEPS = 100_000  # of a scheduler, which makes a table of them
TOKENIZER, PIECES = "tokenizer.json", "spiece.model"
TOKENIZER_SETTINGS = "tokenizer_config.json"


def read_index(weights: Weights, pipelines: Sequence[str]) -> dict[str, Any]:
    """Return a folder's `model_index.json`. An empty `pipelines` allows any pipeline class.

    The class of an image-to-image pipeline is replaced by the text-to-image one, which has the same
    components. Raises UserError if there is no index, or its class is not allowed.
    """
    if weights.find(PIPELINE_INDEX) is None and not weights.is_partial:
        raise _without_index(weights)
    index = weights.read(PIPELINE_INDEX)
    if not pipelines:
        return index
    check_class(weights, PIPELINE_INDEX, index, "_class_name", pipelines)
    return {**index, "_class_name": index["_class_name"].replace("Img2Img", "")}


def _without_index(weights: Weights) -> UserError:
    """Return an error that says what a folder contains that is no pipeline's."""
    files = sorted(weights.root.glob("*.safetensors")) if weights.revision is None else []
    if loras := [file for file in files if is_lora(file)]:
        return lora_alone(loras[0])
    whole = "The folder must hold all components of a pipeline and its model_index.json"
    if weights.find(CONFIG) is None:
        return weights.error(PIPELINE_INDEX, f"does not exist. {whole}")
    config = weights.read(CONFIG)
    kind = config.get("_class_name") or config.get("model_type")
    # SigLIP 2 with a fixed resolution has the model type of SigLIP.
    ways = [
        f"--backbone {spec.name} --weights {weights.location}"
        for spec in load_plugins().backbones
        if spec.scorer == "classifier" and kind in (spec.name, spec.name.removesuffix("2"))
    ]
    advice = f"Use {' or '.join(ways)}" if ways else whole
    return weights.error(CONFIG, f"describes {kind!r:.100}, which is no pipeline. {advice}")


def pipeline_class(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the diffusers class of the pipeline in a folder.

    Raises UserError if the installed diffusers does not have it.
    """
    name = index.get("_class_name")
    try:
        pipeline_cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    except RuntimeError as error:  # a package that the class needs is not installed
        cause = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise weights.error(
            PIPELINE_INDEX, f"has _class_name {name!r:.100}, which cannot be imported: {cause}"
        ) from error
    if pipeline_cls is None or not issubclass(pipeline_cls, diffusers.DiffusionPipeline):
        facts = facts_of(str(name))
        needed = f"; it requires {facts.requires}" if facts else ""
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}, which diffusers {diffusers.__version__} does not"
            f" have{needed}",
        )
    return pipeline_cls


def make_pipeline(
    weights: Weights,
    pipeline_cls: Any,
    index: Mapping[str, Any],
    omitted: Collection[str],
    model_of: Callable[[str, Any], nn.Module],
) -> Any:
    """Return the pipeline of a folder, with the models that `model_of` returns by name and class.

    `omitted` components are None. Raises UserError if a component is missing, damaged, or of a
    class that the installed libraries do not have.
    """
    parameters = inspect.signature(pipeline_cls.__init__).parameters
    components: dict[str, Any] = {
        name: None for name in (*IMAGE_COMPONENTS, *omitted) if name in parameters
    }
    if "requires_safety_checker" in parameters:
        components["requires_safety_checker"] = False
    for name in sorted(parameters.keys() - components.keys() - {"self"}):
        default = parameters[name].default
        value = index.get(name, default)
        if value == [None, None] or (value is None and default is None):
            components[name] = None
        elif default is not inspect.Parameter.empty and not _names_class(value):
            components[name] = value
        elif name == "scheduler":
            components[name] = _scheduler(weights, index)
        else:
            kind = component_class(weights, pipeline_cls, index, name)
            make = model_of if issubclass(kind, nn.Module) else None
            components[name] = make(name, kind) if make else tokenizer_of(weights, name, kind)
    problem = "does not describe a pipeline"
    with explained(weights, PIPELINE_INDEX, problem), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about sampling with older configs
        pipe = pipeline_cls(**components)
    if hasattr(pipe, "labels"):  # it keeps one label of a name that several have
        pipe.labels = index.get("id2label") or {}
    return pipe


def _names_class(value: Any) -> bool:
    """Return whether a value of an index is a library and a class, and not a plain value."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)


def component_class(
    weights: Weights, pipeline_cls: Any, index: Mapping[str, Any], name: str
) -> Any:
    """Return the class of a component: the index's, or else that in the constructor's annotation.

    Of a language model, that is the one whose embeddings are used. Raises UserError if the index
    names a class that the installed libraries do not have.
    """
    entry: Any = index.get(name)
    if _names_class(entry) and entry[1] != OLDER_CLASS:
        library = getattr(diffusers.pipelines, str(entry[0]), None)
        library = {"diffusers": diffusers, "transformers": transformers}.get(entry[0], library)
        if (component := getattr(library, entry[1], None)) is None:
            raise weights.error(
                PIPELINE_INDEX,
                f"has {name} of class {entry[0]}.{entry[1]:.100}, which the installed libraries do"
                " not have",
            )
    else:
        parameters = inspect.signature(pipeline_cls.__init__, eval_str=True).parameters
        annotation = parameters[name].annotation
        component = next(iter(getattr(annotation, "__args__", (annotation,))))
    is_gemma = issubclass(component, transformers.Gemma2PreTrainedModel)
    return transformers.Gemma2Model if is_gemma else component


def dtype_of(name: str, component_cls: Any, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a component of a pipeline that runs in `dtype`.

    Language models such as T5 and Gemma overflow in float16. Some autoencoders do too, and run once
    per image.
    """
    overflows = not issubclass(component_cls, transformers.CLIPPreTrainedModel)
    overflows &= name not in NETWORKS and dtype == torch.float16
    return torch.float32 if overflows or name == AUTOENCODER else dtype


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a model's tensors in place, but for those that its class keeps in float32.

    They are those that diffusers keeps when it reads a folder; its `to` converts them, too.
    """
    kept = kept_in_float32(module)
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if kept & {*name.split(".")} else dtype)
    return module


def build_on_meta(weights: Weights, name: str, component_cls: Any) -> nn.Module:
    """Return a model without weights, on torch's meta device.

    Raises UserError if its config is missing, of another class, quantised or invalid.
    """
    file = f"{name}/config.json"
    config, is_diffusers = weights.read(file), issubclass(component_cls, diffusers.ModelMixin)
    config_cls: Any = getattr(component_cls, "config_class", None)
    if is_diffusers:
        older = (OLDER_CLASS,) if name == NETWORKS[0] else ()
        check_class(weights, file, config, "_class_name", (component_cls.__name__, *older))
    elif config_cls is None:
        raise weights.error(PIPELINE_INDEX, f"does not name the class of {name}")
    else:
        check_class(weights, file, config, "model_type", (config_cls.model_type,))
    if config.get("quantization_config"):
        raise weights.error(file, f"has a quantization_config: the model is quantised; {HAND_OVER}")
    with explained(weights, file, "does not describe a model"), torch.device("meta"):
        module: nn.Module = (
            component_cls.from_config(config)
            if is_diffusers
            else component_cls(config_cls.from_dict(config))
        )
        return module.eval().requires_grad_(False)


def check_class(
    weights: Weights, name: str, config: Mapping[str, Any], key: str, classes: Collection[str]
) -> None:
    """Raise UserError, which calls the config `name`, if its `key` is not one of `classes`."""
    if config.get(key) not in classes:
        raise weights.error(
            name, f"has {key} {config.get(key)!r:.100}; expected {', '.join(classes)}"
        )


def _scheduler(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the scheduler of a folder. Raises UserError if diffusers cannot create it."""
    config = weights.read(SCHEDULER_CONFIG)
    name = config.get("_class_name") or (index.get("scheduler") or [None, None])[1]
    with explained(weights, SCHEDULER_CONFIG, "does not describe a scheduler"):
        steps = config.get("num_train_timesteps", 1000)
        if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
            raise ValueError(
                f"num_train_timesteps is {steps!r:.40}; at most {MAX_STEPS:,} are known"
            )
        return getattr(diffusers, str(name)).from_config(config)


def tokenizer_of(weights: Weights, name: str, component_cls: Any, **settings: Any) -> Any:
    """Return a tokenizer or processor as its library loads it, by the class that is in Rust.

    Raises UserError if that fails, or its settings name files, which could be anywhere.
    """
    file = f"{name}/{TOKENIZER_SETTINGS}"
    config = weights.read(file) if weights.find(file) else {}
    if named := [key for key in config if key.endswith("_file")]:
        raise weights.error(file, f"has {named[0]}; only the files in {name}/ are used: remove it")
    is_alone = weights.find(f"{name}/{PIECES}") and not weights.find(f"{name}/{TOKENIZER}")
    if is_alone and find_spec("sentencepiece") is None:  # the library's advice is another package
        needed = "needs a package to be read: pip install sentencepiece protobuf"
        raise weights.error(f"{name}/{PIECES}", needed)
    fast = getattr(transformers, f"{component_cls.__name__}Fast", component_cls)
    files = [f"{name}/{file}" for file in getattr(fast, "vocab_files_names", {}).values() if file]
    if files and not any(map(weights.find, files)):  # not every version of the library says which
        raise weights.error(f"{name}/{TOKENIZER}", "is not there, nor another vocabulary")
    with explained(weights, f"{name}/", "cannot be loaded"):
        tokenizer = from_library(weights, name, fast, **settings)
        if hasattr(tokenizer, "get_vocab"):  # it is no processor; some fail only when they are used
            tokenizer("a")
    return tokenizer
