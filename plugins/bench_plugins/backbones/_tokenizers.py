"""Load the tokenizers of text encoders, the same ones with every version of transformers.

Files that are incomplete, contradict each other or do not fit the text encoder are rejected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BatchEncoding, CLIPTokenizerFast, PreTrainedTokenizerFast

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench.machine.files import read_bytes
from bench_plugins.backbones._checkpoint import first_line, from_library
from bench_plugins.backbones._configs import check_class, is_whole

MAX_UNUSED_EMBEDDINGS = 127  # of a text encoder, which rounds their number up to a multiple of 128
TOKENIZER = "tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
SENTENCEPIECE_FILE = "spiece.model"
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
    try:
        tokenizer = make()
        tokenizer("a", padding="max_length", max_length=length, truncation=True)
    except UserError:
        raise
    except Exception as error:  # whatever the libraries raise
        raise weights.error(where, f"cannot be loaded: {first_line(error)}") from error
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


def _text_of(token: Any) -> Any:
    """Return the text of a token, which some configs describe by an object."""
    return token.get("content") if isinstance(token, dict) else token


def _pair(merge: Any) -> list[str]:
    """Return the two tokens of a merge: a list in newer files, a line in older ones."""
    return merge.split(" ") if isinstance(merge, str) else merge


class SentencePieceTokenizer:
    """A tokenizer of T5 or SigLIP, made from a SentencePiece model alone.

    A text becomes the ids of its SentencePiece tokens, followed by the end token. The maximum
    `length` includes it. `extra` is the number of T5's sentinel tokens, which the model lacks.
    """

    def __init__(self, processor: Any, end: int, pad: int, length: int, extra: int) -> None:
        self.processor, self.end, self.pad_token_id = processor, end, pad
        self.model_max_length, self.extra = length, extra

    def __len__(self) -> int:
        return int(self.processor.vocab_size()) + self.extra

    def __call__(
        self,
        texts: str | Sequence[str],
        padding: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        padding_side: str = "right",
        return_tensors: str | None = None,
        **others: Any,
    ) -> BatchEncoding:
        """Return token ids and their attention mask, as transformers' tokenizers do."""
        batch = [texts] if isinstance(texts, str) else list(texts)
        limit = max_length or self.model_max_length
        rows = [self.processor.encode(text) for text in batch]
        ids = [[*(row[: limit - 1] if truncation else row), self.end] for row in rows]
        length = limit if padding == "max_length" else max(map(len, ids)) if padding else 0
        pads = [max(0, length - len(row)) for row in ids]
        columns = {
            "input_ids": [row + [self.pad_token_id] * n for row, n in zip(ids, pads, strict=True)],
            "attention_mask": [[1] * len(row) + [0] * n for row, n in zip(ids, pads, strict=True)],
        }
        if isinstance(texts, str) and return_tensors is None:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, tensor_type=return_tensors)

    def batch_decode(self, ids: Any) -> list[str]:
        """Return the texts of token ids, [n, L]."""
        return [str(self.processor.decode(row)) for row in torch.as_tensor(ids).tolist()]


def load_pieces(
    weights: Weights, name: str, path: Path, pad: Any, length: int, extra: int = 0
) -> SentencePieceTokenizer:
    """Return the tokenizer in a SentencePiece file, which messages call `name`.

    `length` includes the end token; `extra` is the number of sentinel tokens. Raises UserError if
    sentencepiece is not installed, or the file is not a model with an end token and `pad`.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise weights.error(
            name,
            "is the only file of the tokenizer (there is no tokenizer.json). Reading it needs: pip"
            " install sentencepiece",
        ) from None
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # whatever the library raises for an invalid file
        raise weights.error(name, f"is not a SentencePiece model: {first_line(error)}") from error
    padding = processor.piece_to_id(pad) if isinstance(pad, str) else -1
    if processor.eos_id() < 0 or padding < 0 or processor.id_to_piece(padding) != pad:
        raise weights.error(name, f"has no end token, or lacks the padding token {pad!r:.40}")
    return SentencePieceTokenizer(processor, processor.eos_id(), padding, length, extra)


@lru_cache(maxsize=4)
def siglip_tokenizer(weights: Weights, positions: int, size: int) -> Any:
    """Return SigLIP's tokenizer. The model was trained to pad texts to `positions` tokens.

    Raises UserError if it is of another class, cannot be loaded, or has more than `size` tokens.
    """
    config, path = weights.read(TOKENIZER_SETTINGS), weights.find(TOKENIZER)
    classes = ("SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast")
    check_class(weights, TOKENIZER_SETTINGS, config, "tokenizer_class", classes)
    pad = _text_of(config.get("pad_token"))
    if path is None:
        if (pieces := weights.find(SENTENCEPIECE_FILE)) is None:
            raise weights.error(TOKENIZER, f"does not exist, nor does {SENTENCEPIECE_FILE}")
        loaded = load_pieces(weights, SENTENCEPIECE_FILE, pieces, pad, positions)
        if len(loaded) > size:
            problem = f"has {len(loaded)} tokens; the model has {size}"
            raise weights.error(SENTENCEPIECE_FILE, problem)
        return loaded
    settings = {"pad_token": pad, "padding_side": "right", "model_max_length": positions}
    tokenizer = _made(
        weights,
        TOKENIZER,
        lambda: PreTrainedTokenizerFast(tokenizer_file=str(path), **settings),
        positions,
    )
    largest = max(tokenizer.get_vocab().values(), default=size)
    if tokenizer.pad_token_id is None or largest >= size:
        raise weights.error(
            TOKENIZER,
            f"has no padding token, or token ids up to {largest}; the model has {size} tokens",
        )
    return tokenizer


def _t5_pieces(weights: Weights, name: str, path: Path, config: Mapping[str, Any]) -> Any:
    extra, length = config.get("extra_ids", 100), config.get("model_max_length", 512)
    if not is_whole(extra) or not 0 <= extra <= 1000 or not is_whole(length) or length < 2:
        raise weights.error(
            name,
            f"has a {TOKENIZER_SETTINGS} with extra_ids {extra!r:.40} and model_max_length"
            f" {length!r:.40}; expected 0 to 1000, and at least 2",
        )
    pad = _text_of(config.get("pad_token", "<pad>"))
    return load_pieces(weights, name, path, pad, length, extra)


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
    whole = weights.find(f"{folder}/tokenizer.json")
    pieces = None if whole else weights.find(f"{folder}/{SENTENCEPIECE_FILE}")
    if pieces is not None:
        tokenizer: Any = _t5_pieces(weights, f"{folder}/{SENTENCEPIECE_FILE}", pieces, config)
    elif whole is None:
        raise weights.error(f"{folder}/", f"has neither tokenizer.json nor {SENTENCEPIECE_FILE}")
    else:
        tokenizer = _from_folder(weights, folder, getattr(transformers, classes[0]), 4)
    size = weights.read(f"{encoder}/config.json").get("vocab_size")
    if not is_whole(size) or not 0 <= size - len(tokenizer) <= MAX_UNUSED_EMBEDDINGS:
        raise weights.error(
            f"{folder}/", f"has {len(tokenizer)} tokens; {encoder}/ has {size!r:.100}"
        )
    return tokenizer
