"""Load models strictly: every tensor must exist, fit and be finite, and none may be left over.

Models are loaded by the `from_pretrained` of their classes, which initialise missing tensors at
random and only report them. Headers are compared first, because they are read at once.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate, groupby
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any

import accelerate
import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, Weights, advise_format
from bench.machine.libraries.private_diffusers import kept_in_float32
from bench.machine.libraries.private_transformers import ignored_keys
from bench.machine.precision import Half

HERE = "."  # in place of a subfolder, if the folder itself is that of the model
# Name of a tensor → the file that has it, its dtype and its shape.
Headers = dict[str, tuple[str, str, list[int]]]
# Names of dtypes in safetensors. Tensors of all of them are cast to the run's dtype.
FLOAT_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32},
    **{"F16": torch.float16, "BF16": torch.bfloat16},
}
INDEX_DTYPES = ("I64", "I32", "BOOL")  # of tables of positions and the like
MAPPED = 2**24  # elements of a file that are read before it is opened again, without what was read
# Ends of names that no class describes and older files have: positions 0, 1, 2 … of CLIP, and the
# head of a language model whose embeddings are used.
LEFT_OVER = ("position_ids", "lm_head.weight")
# Held while models are created, because the libraries' loaders patch torch for all threads. If two
# threads used them at the same time, torch would stay patched.
LOADING = RLock()


def named_weights(weights: Weights | None) -> Weights:
    """Return weights, or raise UserError if none are named: the backbone has none of its own."""
    if weights is None:
        raise UserError(
            "This backbone has no weights of its own: name a folder or a Hub id with --weights."
        )
    return weights


def from_library(weights: Weights, name: str, component_cls: Any, **options: Any) -> Any:
    """Return a component loaded with `from_pretrained`. Raises UserError if that fails."""
    folder = weights.folder(name)
    with explained(weights, f"{name}/", "cannot be loaded"):
        return component_cls.from_pretrained(folder, local_files_only=True, **options)


def load_model(
    weights: Weights, name: str, component_cls: Any, dtype: torch.dtype, device: Any
) -> Any:
    """Return a model in the subfolder `name`, for inference.

    Raises UserError if a tensor is missing, left over, of another shape, or not finite.
    """
    variant, headers = read_headers(weights, name, component_cls, dtype)
    if issubclass(component_cls, diffusers.ModelMixin):
        module = _converted(weights, name, component_cls, dtype, headers)
        if module is not None:
            check_values(weights, name, module, headers)
            return module.to(device).eval().requires_grad_(False)
    options: dict[str, Any] = {"use_safetensors": True, "variant": variant, "torch_dtype": dtype}
    if issubclass(component_cls, transformers.PreTrainedModel):
        # Its error does not name a misshapen tensor. Its report does.
        options["ignore_mismatched_sizes"] = True
        if component_cls is transformers.CLIPTextModel and transformers.__version__ < "5":
            options["key_mapping"] = {r"^(?!text_model\.)": "text_model."}  # as before version 5
    # Parameters created in inference mode could not be used in a backward pass.
    with LOADING, torch.inference_mode(False):
        module, report = from_library(
            weights, name, component_cls, output_loading_info=True, **options
        )
    for tensor, shape, expected in report["mismatched_keys"]:
        raise _misshapen(weights, f"{name}/", tensor, shape, expected)
    left = [tensor for tensor in report["unexpected_keys"] if not tensor.endswith(LEFT_OVER)]
    check_names(weights, name, report["missing_keys"], left)
    check_values(weights, name, module, headers)
    return module.to(device).eval().requires_grad_(False)


def _converted(
    weights: Weights, name: str, component_cls: Any, dtype: torch.dtype, headers: Headers
) -> nn.Module | None:
    """Return a model of diffusers with tensors that are stored in another precision.

    Its library maps whole files while it converts them, which counts as memory. None if no tensor
    is to be converted, or the library knows the tensors by other names.
    """
    if dtype in {FLOAT_DTYPES.get(stored) for _, stored, _ in headers.values()}:
        return None
    with explained(weights, f"{name}/", "cannot be loaded"), LOADING, torch.inference_mode(False):
        with accelerate.init_empty_weights(include_buffers=False):
            module: nn.Module = component_cls.from_config(weights.read(f"{name}/config.json"))
        if headers.keys() != module.state_dict().keys():
            return None
        kept, tensors = kept_in_float32(module), {}
        for file, names in _portions(headers):
            with safe_open(str(weights.find(file)), framework="pt") as opened:
                for tensor in names:
                    value = opened.get_tensor(tensor)
                    wanted = torch.float32 if kept & {*tensor.split(".")} else dtype
                    wanted = wanted if value.is_floating_point() else value.dtype
                    tensors[tensor] = value.to(wanted, copy=True)
        module.load_state_dict(tensors, assign=True)
    return module


def _portions(headers: Headers) -> Iterator[tuple[str, list[str]]]:
    """Yield files with names of their tensors, few enough to be mapped at a time."""
    names = sorted(headers, key=lambda name: headers[name][0])
    read = accumulate(prod(headers[name][2]) for name in names)
    portion = {n: (headers[n][0], count // MAPPED) for n, count in zip(names, read, strict=True)}
    for (file, _), tensors in groupby(names, portion.__getitem__):
        yield file, [*tensors]


def check_headers(weights: Weights, name: str, module: nn.Module) -> None:
    """Raise UserError if files cannot hold the tensors of a model, which may be on the meta device.

    If tensors are missing and others are left over, the library may know them by other names, which
    is decided by `load_model`.
    """
    component_cls: Any = type(module)
    state = module.state_dict()
    dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    headers = read_headers(weights, name, component_cls, dtype)[1]
    for tensor, (file, _, shape) in headers.items():
        if tensor in state and list(state[tensor].shape) != list(shape):
            raise _misshapen(weights, file, tensor, shape, state[tensor].shape)
    surplus = [t for t in headers.keys() - state.keys() if not t.endswith(LEFT_OVER)]
    ignored = ignored_keys(component_cls)  # such as T5's decoder
    left = [tensor for tensor in surplus if not any(re.search(key, tensor) for key in ignored)]
    missing = _missing(module, headers.keys())
    if not (left and missing):
        check_names(weights, name, missing, left)


def _missing(module: nn.Module, stored: Collection[str]) -> list[str]:
    """Return the tensors of a module that are not stored, by their own or by a tied name."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [tied[0] for tied in names.values() if not any(name in stored for name in tied)]


def _misshapen(weights: Weights, where: str, tensor: str, shape: Any, expected: Any) -> UserError:
    return weights.error(
        where,
        f"contains {tensor!r} of shape {list(shape)}; its config requires {list(expected)}",
    )


def check_names(
    weights: Weights, component: str, missing: Collection[str], left: Collection[str]
) -> None:
    """Raise UserError if tensors of a component are missing or left over."""
    for names, problem in (
        (missing, "lacks {} required by its config"),
        (left, "contains {} not described by its config"),
    ):
        if names:
            raise weights.error(f"{component}/", problem.format(_shortened(sorted(names))))


def check_values(
    weights: Weights, component: str, module: nn.Module, headers: Headers | None = None
) -> None:
    """Raise UserError if a tensor of a loaded module was not loaded, or is not finite.

    `headers` are those of its files; None if they have other names.
    """
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            raise weights.error(f"{component}/", f"lacks tensor {name!r} required by its config")
        if not is_finite(tensor):
            where = headers[name][0] if headers and name in headers else f"{component}/"
            raise weights.error(
                where, f"contains values in {name!r} that are not finite in {tensor.dtype}"
            )


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all values are finite, 30 times as fast as `isfinite` and without copies."""
    return not tensor.numel() or all(bool(torch.isfinite(value)) for value in tensor.aminmax())


def read_headers(
    weights: Weights, component: str, component_cls: Any, dtype: torch.dtype
) -> tuple[str | None, Headers]:
    """Return the variant of a model's safetensors files, and the tensors in their headers.

    For float16, the variant `fp16` is preferred, and otherwise None, which is that of the files
    without a suffix. Raises UserError if there is no file, or one is damaged, has other dtypes, or
    repeats a tensor of another.
    """
    is_diffusers = issubclass(component_cls, diffusers.ModelMixin)
    stem = "diffusion_pytorch_model" if is_diffusers else "model"
    variants = ("fp16", None) if dtype == torch.float16 else (None, "fp16")
    # Only a file that does not exist is replaced by another one.
    for variant in variants[:1] if weights.is_partial else variants:
        dotted = f".{variant}" if variant else ""
        single = f"{component}/{stem}{dotted}.safetensors"
        index = f"{component}/{stem}.safetensors.index{dotted}.json"
        # If there are both, diffusers reads the files of the index, and transformers the single.
        if weights.find(index) and (is_diffusers or not weights.find(single)):
            return variant, _headers(weights, _sharded_files(weights, component, index))
        if weights.find(single):
            return variant, _headers(weights, [single])
    folder = Path(weights.location, component)
    advice = advise_format(folder.iterdir()) if folder.is_dir() else None
    if weights.is_partial:
        advice = "the Hub was not asked which files it has: fetch them where there is a network"
    raise weights.error(
        f"{component}/", f"has no {stem}.safetensors{f'; {advice}' if advice else ''}"
    )


def stored_half(weights: Weights, networks: Iterable[str]) -> Half | None:
    """Return bfloat16 if a network's file stores most of its values so, and None otherwise.

    A file of the Hub is not downloaded for that. Raises AbsentError if it cannot be asked.
    """
    stored: Counter[str] = Counter()
    for part in networks:
        files = weights.model_files(part, half=False)
        if weights.revision is None:
            files = [
                f"{part}/{file.name}"
                for file in sorted((weights.root / part).glob("*.safetensors"))
            ]
        for file in files[:1]:  # the others of a network are stored alike
            local = weights.root / file
            tensors = header(local) if local.is_file() else weights.header(file)
            for dtype, shape in tensors.values():
                stored[dtype] += prod(shape)
    most = max(stored, key=lambda dtype: stored[dtype], default=None)
    return "bfloat16" if most == "BF16" else None


def _sharded_files(weights: Weights, component: str, index: str) -> list[str]:
    content = weights.read(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise weights.error(index, "has no weight_map from tensors to files")
    if not isinstance(content.get("metadata"), dict):
        raise weights.error(index, "has no metadata, which the libraries read; {} is enough")
    files = set(names.values()) if all(isinstance(n, str) for n in names.values()) else {""}
    for file in sorted(files):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise weights.error(
                index, f"names {file[:100]!r}; expected a safetensors file in the same folder"
            )
    return [f"{component}/{file}" for file in sorted(files)]


def _headers(weights: Weights, files: list[str]) -> Headers:
    headers: Headers = {}
    for file in files:
        path = weights.find(file)
        if path is None:
            raise weights.error(file, "does not exist, but its index names it")
        for tensor, (dtype, shape) in checked_header(weights, file, path).items():
            if tensor in headers:
                raise weights.error(
                    file, f"contains the tensor {tensor!r}, which another file contains too"
                )
            headers[tensor] = file, dtype, shape
    return headers


def checked_header(weights: Weights, file: str, path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return the dtype and shape of each tensor in a file, which is called `file` in messages.

    Raises UserError if it is damaged, or has tensors that a library would cast without a word.
    """
    with explained(weights, file, "is damaged"):
        content = header_of(path)
    for tensor, (dtype, _) in content.items():
        if dtype not in (*FLOAT_DTYPES, *INDEX_DTYPES):
            raise weights.error(
                file,
                f"contains {tensor[:100]!r} with dtype {dtype}; expected {', '.join(FLOAT_DTYPES)}."
                f" If the model is quantised, {HAND_OVER}",
            )
    return content


def _shortened(names: list[str]) -> str:
    first = " and ".join(repr(name[:100]) for name in names[:2])
    return f"tensor {first}" if len(names) == 1 else f"{len(names)} tensors, such as {first},"


@contextmanager
def explained(weights: Weights, where: str, problem: str) -> Iterator[None]:
    """Turn whatever a library raises into a UserError about a file or folder of the weights."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # for a missing or invalid file, it may be of any class
        raise weights.error(where, f"{problem}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, shortened, or all of a message of ours."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")


# Substrings of tensor names in the LoRA formats of diffusers, PEFT, kohya and LyCORIS.
LORA_TENSORS = ("lora_", "lora.", "hada_w1", "lokr_w1", "dora_scale", "oft_blocks")


def is_lora(path: Path) -> bool:
    """Return whether a file contains a LoRA, judged by its header."""
    return any(word in name for name in header(path) for word in LORA_TENSORS)


def lora_alone(path: Path) -> UserError:
    """Return an error about a LoRA in place of a model."""
    return UserError(
        f"{path} is a LoRA, not a whole model. Add it to the pipeline that it was trained for:"
        f" --backbone PIPELINE --lora {path}"
    )


def header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return the dtype and shape of each tensor in a file; empty if the file is damaged."""
    try:
        return header_of(path)
    except (SafetensorError, OSError):
        return {}


def header_of(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return the dtype and shape of each tensor in a file. Raises what safetensors raises."""
    with safe_open(path, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {n: (tensor.get_dtype(), tensor.get_shape()) for n, tensor in slices.items()}
