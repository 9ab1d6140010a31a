"""Every family's network called by hand: a pipeline's own modules, without the pipeline.

Written from the models' documentation, in float32, one prompt at a time.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from helpers.families import LABELS
from torch import Tensor

NUMBERS = {name: int(key) for key, names in LABELS.items() for name in names.split(", ")}


@torch.no_grad()
def predict(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, **inputs: Any) -> Tensor:
    """Return the network's answer, [B, C, H, W], to noised latents at times [B].

    Args:
        pipe: the pipeline.
        x_t: [B, C, H, W].
        time: the scheduler's time of each, [B].
        prompt: a text; None for the answer without one, from which guidance leads away.
        inputs: what else a network is given; None for its pipeline's own. `text="clip"`: SD 3
            without T5; `tokens`: of T5 in FLUX and PixArt; `strength`: a guidance scale;
            `original_size`: the side that SDXL is told.
    """
    answer: Tensor = PREDICTIONS[type(pipe).__name__](pipe, x_t, time, prompt, inputs)
    return answer[:, : x_t.shape[1]]  # the others are a variance


def _rows(value: Tensor, x_t: Tensor) -> Tensor:
    return value.expand(len(x_t), *value.shape[1:])


def _padded(tokenizer: Any, prompt: str | None, length: int) -> Any:
    return tokenizer(
        prompt or "", padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )


def _sd(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    embeddings = pipe.text_encoder(_padded(pipe.tokenizer, prompt, 77).input_ids)[0]
    return pipe.unet(x_t, time, _rows(embeddings, x_t)).sample


def _sdxl(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    one = pipe.text_encoder(
        _padded(pipe.tokenizer, prompt, 77).input_ids, output_hidden_states=True
    )
    two = pipe.text_encoder_2(
        _padded(pipe.tokenizer_2, prompt, 77).input_ids, output_hidden_states=True
    )
    known = 1.0 if prompt is not None else 0.0  # without a prompt, it is given zeros
    embeddings = known * torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    side = 2 * x_t.shape[-1]  # this autoencoder halves
    original = inputs.get("original_size") or side
    sizes = torch.tensor([[original, original, 0, 0, side, side]], dtype=torch.float32)
    added = {"text_embeds": _rows(known * two.text_embeds, x_t), "time_ids": _rows(sizes, x_t)}
    return pipe.unet(x_t, time, _rows(embeddings, x_t), added_cond_kwargs=added).sample


def _dit(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    network = pipe.transformer
    label = network.config.num_embeds_ada_norm if prompt is None else NUMBERS[prompt]
    return network(x_t, timestep=time, class_labels=torch.tensor([label] * len(x_t))).sample


def _sd3(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    one, two = (
        encoder(_padded(tokenizer, prompt, 77).input_ids, output_hidden_states=True)
        for encoder, tokenizer in (
            (pipe.text_encoder, pipe.tokenizer),
            (pipe.text_encoder_2, pipe.tokenizer_2),
        )
    )
    long = pipe.text_encoder_3(_padded(pipe.tokenizer_3, prompt, 256).input_ids)[0]
    if inputs.get("text") == "clip":
        long = torch.zeros_like(long)
    short = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    wide = torch.zeros(1, 77, long.shape[-1])
    wide[..., : short.shape[-1]] = short
    return pipe.transformer(
        x_t,
        timestep=time,
        encoder_hidden_states=_rows(torch.cat([wide, long], dim=1), x_t),
        pooled_projections=_rows(torch.cat([one.text_embeds, two.text_embeds], dim=-1), x_t),
    ).sample


def _flux(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    guided = pipe.transformer.config.guidance_embeds
    pooled = pipe.text_encoder(_padded(pipe.tokenizer, prompt, 77).input_ids).pooler_output
    length = inputs.get("tokens") or (512 if guided else 256)
    long = pipe.text_encoder_2(_padded(pipe.tokenizer_2, prompt, length).input_ids)[0]
    strength = inputs.get("strength") or 3.5
    _, channels, side, _ = x_t.shape
    corners = [(row, column) for row in range(0, side, 2) for column in range(0, side, 2)]
    squares = [x_t[:, :, row : row + 2, column : column + 2] for row, column in corners]
    answer = pipe.transformer(
        hidden_states=torch.stack([square.flatten(1) for square in squares], dim=1),
        timestep=time / 1000,
        guidance=torch.tensor([strength] * len(x_t)) if guided else None,
        pooled_projections=_rows(pooled, x_t),
        encoder_hidden_states=_rows(long, x_t),
        txt_ids=torch.zeros(length, 3),
        img_ids=torch.tensor([[0.0, row / 2, column / 2] for row, column in corners]),
    ).sample
    image = torch.empty_like(x_t)
    for token, (row, column) in zip(answer.unbind(1), corners, strict=True):
        image[:, :, row : row + 2, column : column + 2] = token.view(-1, channels, 2, 2)
    return image


def _pixart(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    alpha = type(pipe).__name__ == "PixArtAlphaPipeline"
    length = inputs.get("tokens") or (120 if alpha else 300)
    tokens = _padded(pipe.tokenizer, prompt, length)
    embeddings = pipe.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    sides = torch.full((len(x_t), 2), 2.0 * x_t.shape[-1])
    added = {"resolution": sides, "aspect_ratio": torch.ones(len(x_t), 1)}
    return pipe.transformer(
        x_t,
        encoder_hidden_states=_rows(embeddings, x_t),
        encoder_attention_mask=_rows(tokens.attention_mask, x_t),
        timestep=time,
        added_cond_kwargs=added if alpha else {"resolution": None, "aspect_ratio": None},
    ).sample


def _sana(pipe: Any, x_t: Tensor, time: Tensor, prompt: str | None, inputs: Any) -> Any:
    pipe.tokenizer.padding_side = "right"
    lines = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    prefix = "" if prompt is None else "\n".join(lines)  # an instruction comes before every prompt
    length = 300 if prompt is None else len(pipe.tokenizer.encode(prefix)) + 300 - 2
    tokens = _padded(pipe.tokenizer, prefix + (prompt or ""), length)
    embeddings = pipe.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    kept = [0, *range(length - 299, length)]
    return pipe.transformer(
        x_t,
        encoder_hidden_states=_rows(embeddings[:, kept], x_t),
        encoder_attention_mask=_rows(tokens.attention_mask[:, kept], x_t),
        timestep=time * pipe.transformer.config.timestep_scale,
    ).sample


PREDICTIONS: dict[str, Callable[[Any, Tensor, Tensor, str | None, Any], Any]] = {
    "StableDiffusionPipeline": _sd,
    "StableDiffusionXLPipeline": _sdxl,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "SanaPipeline": _sana,
    "DiTPipeline": _dit,
}
