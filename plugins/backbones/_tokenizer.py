"""The CLIP tokenizer of a pipeline: the same under every version of transformers, and whole."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from transformers import CLIPTokenizerFast

from bench.inputs.weights import Weights
from bench.machine.files import read_bytes
from bench_plugins.backbones._checkpoint import first_line
from bench_plugins.backbones._configs import check_class, is_whole

# The class that is backed by the tokenizers library in transformers 4 and 5 alike.
KINDS = ("CLIPTokenizer", "CLIPTokenizerFast")
FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def load_tokenizer(weights: Weights, part: str = "tokenizer", encoder: str = "text_encoder") -> Any:
    """Return the tokenizer, which is checked to fit the text encoder.

    Args:
        weights: the pipeline.
        part: the tokenizer's folder.
        encoder: the text encoder's.

    Raises:
        UserError: it is of another kind, cut, or longer or larger than the text encoder.
    """
    text = weights.read(f"{encoder}/config.json")
    return clip_tokenizer(
        weights, part, text.get("max_position_embeddings"), text.get("vocab_size")
    )


@lru_cache(maxsize=8)
def clip_tokenizer(weights: Weights, part: str, positions: Any, size: Any) -> Any:
    """Return the tokenizer in the folder `part` for an encoder of `positions` and `size` tokens.

    Raises:
        UserError: as `load_tokenizer`.
    """
    name = f"{part}/tokenizer_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "tokenizer_class", KINDS)
    length = config.get("model_max_length")
    if not is_whole(length) or not is_whole(positions) or not 3 <= length <= positions:
        raise weights.error(
            name,
            f"says model_max_length {length!r:.100}; 3 to the text encoder's {positions!r:.100}"
            " positions are possible",
        )
    # Those would be read from wherever the config says.
    if named := [key for key in ("vocab_file", "merges_file", "tokenizer_file") if key in config]:
        raise weights.error(name, f"names a {named[0]}; the files in {part}/ are used")
    found = {file: weights.find(f"{part}/{file}") for file in FILES}
    if not found["tokenizer.json"] and not (found["vocab.json"] and found["merges.txt"]):
        raise weights.error(f"{part}/", "has no vocab.json and merges.txt, and no tokenizer.json")
    folder = weights.folder(part)
    try:
        tokenizer = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        tokenizer("a", padding="max_length", max_length=length)
    except Exception as error:  # whatever the libraries raise where the files make no sense
        raise weights.error(f"{part}/", f"cannot be loaded: {first_line(error)}") from error
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if sorted(vocabulary.values()) != list(range(size if is_whole(size) else -1)):
        raise weights.error(
            f"{part}/",
            f"has {len(vocabulary)} tokens; the text encoder knows {size!r:.100}",
        )
    _check_pieces(weights, part, tokenizer, model["merges"])
    _check_copies(weights, part, model)
    return tokenizer


def _check_pieces(weights: Weights, part: str, tokenizer: Any, merges: list[Any]) -> None:
    """Refuse a vocabulary whose longer tokens are not what the merges make, or a part of them."""
    made = {"".join(_pair(merge)) for merge in merges}
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    longer = {t for t in tokenizer.get_vocab() if len(t.removesuffix("</w>")) > 1} - special
    if made != longer:
        example = sorted(made ^ longer)[0]
        raise weights.error(
            f"{part}/",
            f"has merges that do not make its vocabulary: {len(made ^ longer)} tokens differ, such"
            f" as {example!r:.100}",
        )


def _check_copies(weights: Weights, part: str, model: dict[str, Any]) -> None:
    """Refuse files that contradict each other: versions of transformers read different ones."""
    name = f"{part}/vocab.json"
    if weights.find(name) and weights.read(name) != model["vocab"]:
        raise weights.error(f"{part}/", "has a vocab.json that is not its tokenizer.json's")
    if path := weights.find(f"{part}/merges.txt"):
        lines = read_bytes(path).decode("utf-8", "replace").split("\n")
        pairs = [line for line in lines if line and not line.startswith("#version")]
        if pairs != [" ".join(_pair(merge)) for merge in model["merges"]]:
            raise weights.error(f"{part}/", "has a merges.txt that is not its tokenizer.json's")


def _pair(merge: Any) -> list[str]:
    """Return the two pieces of a merge; newer versions write a list, older ones a line."""
    return merge.split(" ") if isinstance(merge, str) else merge
