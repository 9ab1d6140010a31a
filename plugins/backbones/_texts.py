"""Text encoders of a pipeline: CLIP, T5 and Gemma, each loaded, used and freed.

One of them may be larger than the network, so no two are in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from bench.engine.transfer import free_memory
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import ModelPart, first_line, load, transformers_part
from bench_plugins.backbones._configs import check_class, is_whole
from bench_plugins.backbones._tokenizers import SENTENCEPIECE_FILE, load_pieces, load_tokenizer

TEXTS_PER_CALL = 16  # texts that an encoder is given at a time
SPARE = 127  # rows of an embedding that no token uses: sizes are rounded up to multiples of 128
POSITIONS = ("text_model.embeddings.position_ids", "embeddings.position_ids")  # 0, 1, 2 …


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder with its tokenizer.

    Attributes:
        part: the module.
        model_type: what its config says it is.
        tokenizer: its tokenizer's folder.
        length: tokens that texts are padded to; None: the tokenizer's own limit.
        kinds: the classes of tokenizer that fit, the first of which reads it; empty: CLIP's.
        narrow: whether it may run in float16; T5 and Gemma overflow there.
    """

    part: ModelPart
    model_type: str
    tokenizer: str
    length: int | None = None
    kinds: tuple[str, ...] = ()
    narrow: bool = False

    def tokens(self, weights: Weights) -> Any:
        """Return the tokenizer, checked."""
        if not self.kinds:
            return load_tokenizer(weights, self.tokenizer, self.part.folder)
        return _load_other(weights, self.tokenizer, self.part.folder, self.kinds)

    def limit(self, weights: Weights) -> int:
        """Return the tokens that a text may have, and is padded to."""
        return self.length or int(self.tokens(weights).model_max_length)

    def counts(self, weights: Weights, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, the special ones included."""
        return [len(ids) for ids in self.tokens(weights)(list(texts)).input_ids]

    def ids(
        self, weights: Weights, texts: Sequence[str], length: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and their mask, int64 [n, L] each, padded on the right."""
        encoding = self.tokens(weights)(
            list(texts),
            padding="max_length",
            max_length=length or self.limit(weights),
            truncation=True,
            padding_side="right",
            return_tensors="pt",
        )
        return encoding.input_ids, encoding.attention_mask

    @torch.inference_mode()
    def encode(
        self,
        weights: Weights,
        config: Mapping[str, Any],
        tokens: tuple[torch.Tensor, torch.Tensor],
        take: Callable[[nn.Module, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[torch.Tensor, ...]:
        """Load the encoder, encode all texts, and free it."""
        own = torch.float32 if dtype == torch.float16 and not self.narrow else dtype
        module = load(weights, self.part, config, own, device)
        batches: list[tuple[torch.Tensor, ...]] = []
        for start in range(0, len(tokens[0]), TEXTS_PER_CALL):
            ids, mask = (t[start : start + TEXTS_PER_CALL].to(device) for t in tokens)
            batches.append(tuple(x.to(dtype) for x in take(module, ids, mask)))
        del module
        free_memory(device)
        return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def clip(folder: str, tokenizer: str, projected: bool) -> TextEncoder:
    """Return a CLIP text encoder; `projected`: with the projection of its pooled output."""
    part = transformers_part(
        folder,
        transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel,
        transformers.CLIPTextConfig,
        renamed=lambda name: name.removeprefix("text_model."),
        unused=POSITIONS,
    )
    return TextEncoder(part, "clip_text_model", tokenizer, narrow=True)


def t5(folder: str, tokenizer: str, length: int) -> TextEncoder:
    """Return a T5 encoder, whose texts are padded to `length` tokens."""
    tied = {"encoder.embed_tokens.weight": "shared.weight"}
    part = transformers_part(folder, transformers.T5EncoderModel, transformers.T5Config, tied=tied)
    return TextEncoder(part, "t5", tokenizer, length, ("T5TokenizerFast", "T5Tokenizer"))


def gemma(folder: str, tokenizer: str, length: int) -> TextEncoder:
    """Return a Gemma 2 decoder without its head, whose texts are padded to `length` tokens."""
    part = transformers_part(
        folder,
        transformers.Gemma2Model,
        transformers.Gemma2Config,
        renamed=lambda name: name.removeprefix("model."),
        unused=("lm_head.weight",),
    )
    return TextEncoder(part, "gemma2", tokenizer, length, ("GemmaTokenizerFast", "GemmaTokenizer"))


# What is taken of an encoder's output.


def penultimate(module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """Return the hidden states before the last layer."""
    return (module(ids, output_hidden_states=True).hidden_states[-2],)


def penultimate_and_pooled(module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """Return the hidden states before the last layer, and the projected pooled output."""
    output = module(ids, output_hidden_states=True)
    return output.hidden_states[-2], output.text_embeds


def pooled(module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """Return the pooled output, not projected."""
    return (module(ids).pooler_output,)


def last(module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """Return the last hidden states, of a text that sees its padding."""
    return (module(ids)[0],)


def last_masked(module: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """Return the last hidden states, zero where there is only padding."""
    return (module(ids, attention_mask=mask)[0] * mask[..., None],)


def union(rest: Any, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a mixture's mask, [1, L]: a place counts where it does for one of its prompts."""
    mask = rest["mask"]
    used = (weights > 0).to(mask.device)[:, None]
    return {"mask": (mask.bool() & used).any(dim=0, keepdim=True).to(mask.dtype)}


def _fast(weights: Weights, folder: str, kind: str) -> Any:
    try:
        tokenizer = getattr(transformers, kind).from_pretrained(
            weights.folder(folder), local_files_only=True
        )
        tokenizer("a", padding="max_length", max_length=4, truncation=True)
    except Exception as error:  # whatever the libraries raise where the files make no sense
        raise weights.error(f"{folder}/", f"cannot be loaded: {first_line(error)}") from error
    return tokenizer


def _pieces(weights: Weights, name: str, path: Path, config: Mapping[str, Any]) -> Any:
    extra, length = config.get("extra_ids", 100), config.get("model_max_length", 512)
    if not is_whole(extra) or not 0 <= extra <= 1000 or not is_whole(length) or length < 2:
        raise weights.error(name, "comes with a config whose extra_ids or model_max_length is odd")
    pad = config.get("pad_token", "<pad>")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    return load_pieces(weights, name, path, pad, length, extra)


@lru_cache(maxsize=4)
def _load_other(weights: Weights, folder: str, encoder: str, kinds: tuple[str, ...]) -> Any:
    """Return a tokenizer that is not CLIP's, checked to fit its text encoder."""
    name = f"{folder}/tokenizer_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "tokenizer_class", kinds)
    if named := [key for key in ("vocab_file", "tokenizer_file") if key in config]:
        raise weights.error(name, f"names a {named[0]}; the files in {folder}/ are used")
    weights.find(f"{folder}/special_tokens_map.json")  # from the Hub: the library reads it there
    whole = weights.find(f"{folder}/tokenizer.json")
    pieces = None if whole else weights.find(f"{folder}/{SENTENCEPIECE_FILE}")
    if pieces is not None:
        tokenizer: Any = _pieces(weights, f"{folder}/{SENTENCEPIECE_FILE}", pieces, config)
    elif whole is None:
        raise weights.error(f"{folder}/", f"has no tokenizer.json, and no {SENTENCEPIECE_FILE}")
    else:
        tokenizer = _fast(weights, folder, kinds[0])
    size = weights.read(f"{encoder}/config.json").get("vocab_size")
    if not is_whole(size) or not 0 <= size - len(tokenizer) <= SPARE:
        raise weights.error(
            f"{folder}/", f"has {len(tokenizer)} tokens; {encoder}/ knows {size!r:.100}"
        )
    return tokenizer
