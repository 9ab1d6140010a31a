"""Find the classes of a pipeline's components in a folder, and put the pipeline together."""

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from bench.inputs.weights import Weights
from bench.machine.libraries.private_diffusers import kept_in_float32
from bench_plugins.backbones._checkpoint import explained, from_library
from bench_plugins.backbones._configs import read_config
from bench_plugins.backbones._tokenizers import clip_tokenizer, other_tokenizer

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PIPELINE_INDEX = "model_index.json"
AUTOENCODER = "vae"
NETWORKS = ("transformer", "unet")  # names of the denoising network in a pipeline
EMBEDDINGS = "0.0"  # leaf of a conditioning: the first value that the pipeline returns
OLDER_CLASS = "Transformer2DModel"  # class of DiT and PixArt in files made before diffusers 0.29
# Components that process generated images. None are generated here.
IMAGE_COMPONENTS = ("safety_checker", "feature_extractor", "image_encoder", "add_watermarker")
TOKENIZERS = {
    "t5": ("T5TokenizerFast", "T5Tokenizer"),
    "gemma2": ("GemmaTokenizerFast", "GemmaTokenizer"),
}


def components_of(
    weights: Weights,
    pipeline_cls: Any,
    index: Mapping[str, Any],
    omitted: Collection[str],
    model_of: Callable[[str, Any], nn.Module | None],
) -> dict[str, Any]:
    """Return the arguments of a pipeline class for a folder.

    `model_of` returns the model of a name and class; if it is None, the argument is left out.
    `omitted` components are None. Raises UserError if one is missing, damaged, or of a class that
    the installed libraries do not have.
    """
    parameters = inspect.signature(pipeline_cls.__init__).parameters
    components: dict[str, Any] = {
        name: None for name in (*IMAGE_COMPONENTS, *omitted) if name in parameters
    }
    if "requires_safety_checker" in parameters:
        components["requires_safety_checker"] = False
    remaining = parameters.keys() - components.keys() - {"self"}
    # Tokenizers come last, because they are checked against their text encoders.
    for name in sorted(remaining, key=lambda name: ("token" in name, name)):
        default = parameters[name].default
        value = index.get(name, default)
        if value == [None, None] or (value is None and default is None):
            components[name] = None
        elif not isinstance(value, list) and default is not inspect.Parameter.empty:
            components[name] = value
        elif name == "scheduler":
            components[name] = read_scheduler(weights, index)
        else:
            component_cls = component_class(weights, pipeline_cls, index, name)
            if not issubclass(component_cls, nn.Module):
                components[name] = tokenizer_of(weights, name, component_cls)
            elif (model := model_of(name, component_cls)) is not None:
                components[name] = model
    return components


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


def make_pipeline(weights: Weights, pipeline_cls: Any, components: Mapping[str, Any]) -> Any:
    """Return a pipeline. Raises UserError if the components do not fit each other."""
    problem = "does not describe a pipeline"
    with explained(weights, PIPELINE_INDEX, problem), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about sampling with older configs
        return pipeline_cls(**components)


def component_class(
    weights: Weights, pipeline_cls: Any, index: Mapping[str, Any], name: str
) -> Any:
    """Return the class of a component: the index's, or else that in the constructor's annotation.

    Of a language model, that is the one whose embeddings are used. Raises UserError if the index
    names a class that the installed libraries do not have.
    """
    entry = index.get(name)
    if isinstance(entry, list) and len(entry) == 2 and entry[1] != OLDER_CLASS:
        library = getattr(diffusers.pipelines, str(entry[0]), None)
        library = {"diffusers": diffusers, "transformers": transformers}.get(entry[0], library)
        if (component := getattr(library, str(entry[1]), None)) is None:
            qualified = ".".join(map(str, entry))
            raise weights.error(
                PIPELINE_INDEX,
                f"has {name} of class {qualified:.100}, which the installed libraries do not have",
            )
    else:
        parameters = inspect.signature(pipeline_cls.__init__, eval_str=True).parameters
        annotation = parameters[name].annotation
        component = next(iter(getattr(annotation, "__args__", (annotation,))))
    is_gemma = issubclass(component, transformers.Gemma2PreTrainedModel)
    return transformers.Gemma2Model if is_gemma else component


def config_of(weights: Weights, name: str, component_cls: Any) -> dict[str, Any]:
    """Return the validated config of a model in a folder.

    Raises UserError if it is missing, of another class, quantised, or has an implausible number.
    """
    if issubclass(component_cls, diffusers.ModelMixin):
        classes = (component_cls.__name__, *((OLDER_CLASS,) if name == "transformer" else ()))
        return read_config(weights, name, "_class_name", classes)
    if (config_class := getattr(component_cls, "config_class", None)) is None:
        raise weights.error(PIPELINE_INDEX, f"does not name the class of {name}")
    return read_config(weights, name, "model_type", (config_class.model_type,))


def build_on_meta(weights: Weights, name: str, component_cls: Any) -> nn.Module:
    """Return a model without weights, on torch's meta device.

    Raises UserError if its config is invalid, as `config_of` does.
    """
    config = config_of(weights, name, component_cls)
    is_diffusers = issubclass(component_cls, diffusers.ModelMixin)
    problem = "does not describe a model"
    with explained(weights, f"{name}/config.json", problem), torch.device("meta"):
        module: nn.Module = (
            component_cls.from_config(config)
            if is_diffusers
            else component_cls(component_cls.config_class.from_dict(config))
        )
        return module.eval().requires_grad_(False)


def read_scheduler(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the scheduler of a folder. Raises UserError if diffusers cannot create it."""
    name = "scheduler/scheduler_config.json"
    config = weights.read(name)
    entry = index.get("scheduler") or [None, config.get("_class_name")]
    with explained(weights, name, "does not describe a scheduler"):
        return getattr(diffusers, str(entry[1])).from_config(config)


def tokenizer_of(weights: Weights, name: str, component_cls: Any) -> Any:
    """Return a tokenizer or processor. That of CLIP, T5 or Gemma 2 is checked against its encoder.

    Raises UserError if it cannot be loaded or does not fit.
    """
    encoder = name.replace("tokenizer", "text_encoder")
    has_encoder = encoder != name and weights.find(f"{encoder}/config.json")
    text = weights.read(f"{encoder}/config.json") if has_encoder else {}
    if (model_type := text.get("model_type")) == "clip_text_model":
        positions, size = text.get("max_position_embeddings"), text.get("vocab_size")
        return clip_tokenizer(weights, name, positions, size)
    if model_type in TOKENIZERS:
        return other_tokenizer(weights, name, encoder, TOKENIZERS[model_type])
    return from_library(weights, name, component_cls)
