"""Names of diffusers that it does not document, seen in 0.33 to 0.42."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from bench.machine.libraries import Library

# A property of a pipeline: the device of its inputs, which is that of its hooks if it is offloaded.
EXECUTION_DEVICE = "_execution_device"
# An attribute of a pipeline, which its `set_progress_bar_config` replaces.
PROGRESS_BAR_CONFIG = "_progress_bar_config"
# Attributes of a pipeline that `enable_model_cpu_offload` and `enable_sequential_cpu_offload` set.
OFFLOADING = ("_all_hooks", "_offload_device", "_offload_gpu_id")
_models: Any = Library("diffusers")
_single_file: Any = Library("diffusers.loaders.single_file_utils")


def hooks_of(module: Any) -> Mapping[str, Any]:
    """Return diffusers' own hooks of a module by name."""
    hooks: Mapping[str, Any] = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    return hooks


def own_forward(module: Any) -> Any:
    """Return the forward of a module below diffusers' hooks; None if there are none."""
    references = getattr(getattr(module, "_diffusers_hook", None), "_fn_refs", ())
    return next((ref.original_forward or ref.forward for ref in references), None)


def attention_backend() -> str:
    """Return the name of the attention that is active in this process."""
    dispatch: Any = sys.modules.get("diffusers.models.attention_dispatch")
    if dispatch is None:  # no model uses it, or diffusers is older
        return "native"
    return str(dispatch._AttentionBackendRegistry._active_backend.value)


def kept_in_float32(model: Any) -> set[str]:
    """Return the parts of names of the tensors that a model or its class keeps in float32.

    A model of diffusers keeps them beside either half precision. Models of transformers have the
    same attribute, but it holds for float16 alone, in which none of them is loaded.
    """
    model_cls = model if isinstance(model, type) else type(model)
    own = issubclass(model_cls, _models.ModelMixin)
    return set(getattr(model, "_keep_in_fp32_modules", None) or ()) if own else set()


def repeated_blocks(network: Any) -> Collection[str]:
    """Return the names of the classes of which a network has many blocks."""
    return getattr(network, "_repeated_blocks", None) or ()


def model_type(shapes: Mapping[str, Any]) -> str:
    """Return diffusers' name for the model in a single file; `v1` also for unknown ones."""
    name: str = _single_file.infer_diffusers_model_type(shapes)
    return name


def default_pipeline(name: str) -> str:
    """Return the Hub id of the pipeline whose configs fit single files of a type."""
    return str(_single_file.DIFFUSERS_DEFAULT_PIPELINE_PATHS[name]["pretrained_model_name_or_path"])


def has_text_encoder(component_cls: Any, shapes: Mapping[str, Any]) -> bool:
    """Return whether a single file has a text encoder of this class."""
    has_clip = _single_file.is_clip_model_in_single_file(component_cls, shapes)
    return bool(has_clip or _single_file.is_t5_in_single_file(shapes))
