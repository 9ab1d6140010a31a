"""Load the tokenizers of text encoders, the same ones with every version of transformers.

Files that are incomplete, contradict each other or do not fit the text encoder are rejected.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

import transformers
from transformers import CLIPTokenizerFast, PreTrainedTokenizerFast, T5TokenizerFast

from bench.inputs.weights import Weights
from bench.machine.files import read_bytes
from bench_plugins.backbones._checkpoint import HERE, explained, from_library
from bench_plugins.backbones._configs import check_class, is_whole

MAX_UNUSED_EMBEDDINGS = 127  # of a text encoder, which rounds their number up to a multiple of 128
TOKENIZER = "tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
SENTENCEPIECE_FILE = "spiece.model"
END = "</s>"  # token of T5 and SigLIP
CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
CLIP_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@lru_cache(maxsize=8)
def clip_tokenizer(weights: Weights, component: str, positions: Any, size: Any) -> Any:
    """Return the CLIP tokenizer in the subfolder `component`.

    `positions` and `size` are the text encoder's maximum length and number of token embeddings.
    Raises UserError if the tokenizer is of another class, incomplete, or does not fit them.
    """
    name = f"{component}/tokenizer_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "tokenizer_class", CLIP_TOKENIZERS)
    length = config.get("model_max_length")
    if not is_whole(length) or not is_whole(positions) or not 3 <= length <= positions:
        raise weights.error(
            name,
            f"has model_max_length {length!r:.100}; expected 3 to {positions!r:.100}, the number of"
            " positions of the text encoder",
        )
    _check_own_files(weights, component, config)
    files = {file: weights.find(f"{component}/{file}") for file in CLIP_FILES}
    if not files["tokenizer.json"] and not (files["vocab.json"] and files["merges.txt"]):
        raise weights.error(
            f"{component}/", "has neither tokenizer.json nor vocab.json and merges.txt"
        )
    # The fast class is backed by the tokenizers library in transformers 4 and 5.
    tokenizer = _from_folder(weights, component, CLIPTokenizerFast, length)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if sorted(vocabulary.values()) != list(range(size if is_whole(size) else -1)):
        raise weights.error(
            f"{component}/", f"has {len(vocabulary)} tokens; the text encoder has {size!r:.100}"
        )
    _check_pieces(weights, component, tokenizer, model["merges"])
    _check_copies(weights, component, model)
    return tokenizer


def _check_own_files(weights: Weights, component: str, config: Mapping[str, Any]) -> None:
    """Reject a config that names files, because they could be anywhere."""
    if named := [key for key in ("vocab_file", "merges_file", "tokenizer_file") if key in config]:
        name = f"{component}/{TOKENIZER_SETTINGS}"
        raise weights.error(
            name, f"has {named[0]}; only the files in {component}/ are used, so remove it"
        )


def _from_folder(weights: Weights, component: str, tokenizer_cls: Any, length: int) -> Any:
    name = f"{component}/"
    return _made(weights, name, lambda: from_library(weights, component, tokenizer_cls), length)


def _made(weights: Weights, where: str, make: Callable[[], Any], length: int) -> Any:
    """Return the tokenizer that `make` loads, after encoding a text. Errors name `where`."""
    with explained(weights, where, "cannot be loaded"):
        tokenizer = make()
        tokenizer("a", padding="max_length", max_length=length, truncation=True)
        return tokenizer


def _check_pieces(weights: Weights, component: str, tokenizer: Any, merges: list[Any]) -> None:
    """Check that the tokens longer than one character are exactly those that merges produce."""
    merged = {"".join(_pair(merge)) for merge in merges}
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    longer = {t for t in tokenizer.get_vocab() if len(t.removesuffix("</w>")) > 1} - special
    if different := merged ^ longer:
        raise weights.error(
            f"{component}/",
            f"has merges that do not produce its vocabulary: {len(different)} tokens differ, such"
            f" as {min(different)!r:.100}",
        )


def _check_copies(weights: Weights, component: str, model: dict[str, Any]) -> None:
    """Check that files agree, because versions of transformers read different ones."""
    name = f"{component}/vocab.json"
    if weights.find(name) and weights.read(name) != model["vocab"]:
        raise weights.error(f"{component}/", "has a vocab.json that differs from tokenizer.json")
    if path := weights.find(f"{component}/merges.txt"):
        lines = read_bytes(path).decode("utf-8", "replace").split("\n")
        pairs = [line for line in lines if line and not line.startswith("#version")]
        if pairs != [" ".join(_pair(merge)) for merge in model["merges"]]:
            raise weights.error(
                f"{component}/", "has a merges.txt that differs from tokenizer.json"
            )


def _pair(merge: Any) -> list[str]:
    """Return the two tokens of a merge: a list in newer files, a line in older ones."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _check_vocabulary(weights: Weights, folder: str) -> None:
    """Raise UserError if a tokenizer has no vocabulary that the installed packages can read."""
    if weights.find(f"{folder}/{TOKENIZER}"):
        return
    if weights.find(f"{folder}/{SENTENCEPIECE_FILE}") is None:
        raise weights.error(f"{folder}/", f"has neither {TOKENIZER} nor {SENTENCEPIECE_FILE}")
    try:
        for package in ("sentencepiece", "google.protobuf"):
            import_module(package)
    except ImportError:
        raise weights.error(
            f"{folder}/{SENTENCEPIECE_FILE}",
            f"is the only file of the tokenizer (there is no {TOKENIZER}). Reading it needs: pip"
            " install sentencepiece protobuf",
        ) from None


@lru_cache(maxsize=4)
def siglip_tokenizer(weights: Weights, positions: int, size: int) -> Any:
    """Return SigLIP's tokenizer. The model was trained to pad texts to `positions` tokens.

    Raises UserError if it is of another class, cannot be loaded, or has more than `size` tokens.
    """
    config, path = weights.read(TOKENIZER_SETTINGS), weights.find(TOKENIZER)
    classes = ("SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast")
    check_class(weights, TOKENIZER_SETTINGS, config, "tokenizer_class", classes)
    _check_vocabulary(weights, HERE)
    name, pad = (TOKENIZER if path else SENTENCEPIECE_FILE), config.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    settings: dict[str, Any] = {"padding_side": "right", "model_max_length": positions}

    def make() -> Any:
        if path:
            fast: Any = PreTrainedTokenizerFast(tokenizer_file=str(path), **settings)
        else:  # the class of T5 reads SentencePiece's files with every version of transformers
            settings.update(extra_ids=0, pad_token=END)
            fast = from_library(weights, HERE, T5TokenizerFast, **settings)
        if pad not in fast.get_vocab():
            raise weights.error(name, f"lacks the padding token {pad!r:.40}")
        fast.pad_token = pad
        return fast

    tokenizer = _made(weights, name, make, positions)
    if (largest := max(tokenizer.get_vocab().values())) >= size:
        raise weights.error(name, f"has token ids up to {largest}; the model has {size} tokens")
    return tokenizer


@lru_cache(maxsize=4)
def other_tokenizer(weights: Weights, folder: str, encoder: str, classes: tuple[str, ...]) -> Any:
    """Return the tokenizer of T5 or Gemma in the subfolder `folder`, with the first of `classes`.

    Raises UserError if it is of none of them, cannot be loaded, or does not fit the text encoder in
    the subfolder `encoder`.
    """
    name = f"{folder}/tokenizer_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "tokenizer_class", classes)
    _check_own_files(weights, folder, config)
    _check_vocabulary(weights, folder)
    extra = config.get("extra_ids", 100)
    if not is_whole(extra) or not 0 <= extra <= 1000:
        raise weights.error(name, f"has extra_ids {extra!r:.40}; expected 0 to 1000")
    tokenizer = _from_folder(weights, folder, getattr(transformers, classes[0]), 4)
    size = weights.read(f"{encoder}/config.json").get("vocab_size")
    if not is_whole(size) or not 0 <= size - len(tokenizer) <= MAX_UNUSED_EMBEDDINGS:
        raise weights.error(
            f"{folder}/", f"has {len(tokenizer)} tokens; {encoder}/ has {size!r:.100}"
        )
    return tokenizer
