"""Errors of the tokens of images, by the models of transformers and diffusers in float32.

It imports nothing of the toolkit. Each image and text, and of a masked model each draw, is one pass
of the network.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from oracle.question import Array, Question
from oracle.reference import picture, upright
from PIL import Image, ImageOps
from torch import Tensor

CLASSES = {"janus": "Janus", "emu3": "Emu3"}  # kind → start of the names of its classes


@torch.no_grad()
def token_errors(
    folder: Path, kind: str, images: Mapping[str, Path], q: Question
) -> tuple[Array, Array]:
    """Return the errors of all images, float64 [I, P, N], and the weights of the draws, [N]."""
    model, processor = _loaded(kind, folder)
    likelihood = {"janus": _janus, "emu3": _emu3}[kind]
    table = np.empty((len(images), len(q.prompts), q.draws))
    for row, file in enumerate(images.values()):
        image = upright(file, q)
        views = [ImageOps.mirror(image), image] if q.views == "flip" else [image]
        for draw, view in enumerate(views):
            codes, _, empty = likelihood(model, processor, view, "")
            own = q.relative * _log_likelihood(empty, codes)
            for column, (text, _) in enumerate(q.prompts):
                codes, prompt, null = likelihood(model, processor, view, text)
                logits = null + (1 if q.guidance is None else q.guidance) * (prompt - null)
                table[row, column, draw] = own - _log_likelihood(logits, codes)
    return table, np.ones(q.draws)


@torch.no_grad()
def masked_errors(folder: Path, images: Mapping[str, Path], q: Question) -> tuple[Array, Array]:
    """Return the errors under an aMUSEd, float64 [I, P, N], and the weights of the draws, [N]."""
    pipe = diffusers.AmusedPipeline.from_pretrained(folder)
    rows, scale = pipe.transformer.config.sample_size, pipe.vae_scale_factor
    side, table = rows * scale, np.empty((len(images), len(q.prompts), q.draws))
    for row, file in enumerate(images.values()):
        pixels = np.asarray(picture(file, replace(q, resolution=side)), np.float32) / 255
        latents = pipe.vqvae.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None]).latents
        codes = pipe.vqvae.quantize(latents)[2][2].view(1, rows, rows)
        for draw, column in product(range(q.draws), range(len(q.prompts))):
            hidden = hidden_tokens(q.masks, q.seed, draw, q.draws, rows**2).view(1, rows, rows)
            words = pipe.tokenizer(
                q.prompts[column][0], padding="max_length", max_length=77, return_tensors="pt"
            )
            read = pipe.text_encoder(words.input_ids, output_hidden_states=True)
            logits = pipe.transformer(
                codes.masked_fill(hidden, pipe.scheduler.config.mask_token_id),
                encoder_hidden_states=read.hidden_states[-2],
                pooled_text_emb=read.text_embeds,
                micro_conds=torch.tensor([[side, side, 0, 0, 6.0]]),
            )
            chosen = logits.double().log_softmax(dim=1).gather(1, codes[:, None])[:, 0]
            table[row, column, draw] = -float(chosen[hidden].mean())
    return table, np.ones(q.draws)


def hidden_tokens(masks: str, seed: int, draw: int, draws: int, tokens: int) -> Tensor:
    """Return a mask of the hidden tokens, bool [D]: those with the smallest random numbers."""
    place = (2 * draw + 1) / (2 * draws)
    count = 1 + math.floor(place * tokens)
    if masks == "training":
        count = max(1, round(tokens * math.cos(math.pi / 2 * place)))
    numbers = np.random.Philox(key=100_000 * seed + draw).random_raw(tokens)
    return torch.from_numpy(numbers <= np.sort(numbers)[count - 1])


@cache
def _loaded(kind: str, folder: Path) -> tuple[Any, Any]:
    model_cls = getattr(transformers, f"{CLASSES[kind]}ForConditionalGeneration")
    processor_cls = getattr(transformers, f"{CLASSES[kind]}Processor")
    model = model_cls.from_pretrained(folder).eval()
    return model, processor_cls.from_pretrained(folder, backend="pil")


def _log_likelihood(logits: Tensor, codes: Tensor) -> float:
    chosen = logits.double().log_softmax(dim=1).gather(1, codes[:, None])
    return float(chosen.sum())


def _janus(model: Any, processor: Any, image: Image.Image, text: str) -> tuple[Tensor, ...]:
    """Return the codes of an image, and their logits, [n, V], after the prompt and the null."""
    pixels = processor.image_processor(images=image, return_tensors="pt").pixel_values
    codes = model.model.vqmodel.encode(pixels, return_dict=True).image_tokens.flatten()
    content = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    wrapped = processor.apply_chat_template(content, add_generation_prompt=True)
    ids = processor(text=[wrapped], generation_mode="image", return_tensors="pt").input_ids
    start, config = processor.tokenizer.convert_tokens_to_ids("<boi>"), model.generation_config
    special = (ids == config.bos_token_id) | (ids == start)
    pictures = model.model.generation_aligner(model.model.generation_embeddings(codes[None]))
    logits = []
    for tokens in (ids, ids.masked_fill(~special, config.pad_token_id)):
        embedded = torch.cat([model.get_input_embeddings()(tokens), pictures], dim=1)
        states = model.model.language_model(inputs_embeds=embedded).last_hidden_state
        logits.append(model.model.generation_head(states[0, -len(codes) - 1 : -1]))
    return codes, *logits


def _emu3(model: Any, processor: Any, image: Image.Image, text: str) -> tuple[Tensor, ...]:
    """Return the codes of an image, and their logits, [n, V], after the prompt and the null."""
    inputs = processor.image_processor(images=image, return_tensors="pt")
    ids = model.model.get_image_tokens(inputs.pixel_values, inputs.image_sizes).flatten()
    rows, columns = (side // 8 for side in inputs.image_sizes[0].tolist())
    names = model.config.vocabulary_map
    visual = torch.tensor([names[n] for n in sorted(names) if n.startswith("<|visual token")])
    is_code = torch.isin(ids, visual)  # the others end the rows
    logits = []
    for words in (text, ""):
        asked = f"{words}<|image start|>{rows}*{columns}<|image token|>"
        prompt = processor(text=[asked], return_tensors="pt").input_ids
        after = model(input_ids=torch.cat([prompt, ids[None]], dim=1)).logits[0]
        logits.append(after[-len(ids) - 1 : -1][is_code][:, visual])
    return torch.searchsorted(visual, ids[is_code]), *logits
