"""Small pipelines that are run by their own code: diffusers' own classes, random weights.

Text encoders are of the real classes, too. Of the tokenizers only T5's and Gemma's are: the others'
files cannot be made small, and a tokenizer of characters stands in for them.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.kolors import ChatGLMModel
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig
from helpers.families import clip, finished, gemma, t5, unet_told_sizes, vae
from helpers.parts import kl_config
from helpers.pipelines import UNETS
from helpers.text_encoders import DECODER, WIDTH, decoder, glm_tokenizer, tokenizer, umt5

from bench_plugins.backbones._pipelines.calls import Stop
from bench_plugins.backbones.pipeline import PipelineDenoiser

SIDES = {"Lumina2Pipeline": 64}  # of the pictures; 16 of the others
DDIM_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
ROPE = (4, 6, 6)  # of such heads


def made(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return the small pipeline of a class; its autoencoder is in float32."""
    torch.manual_seed(0)
    pipe = finished(MAKERS[kind](), dtype)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    return pipe


def sampled(
    backbone: PipelineDenoiser, prompt: str
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return what the pipeline's own loop gives its scheduler: answers, times and samples."""
    steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    scheduler = backbone.pipe.scheduler
    step = scheduler.step
    scaled = getattr(scheduler, "scale_model_input", lambda sample, t: sample)

    def recorded(answer: Any, t: Any, sample: torch.Tensor, **more: Any) -> Any:
        steps.append((answer.clone(), t.reshape(1).clone(), scaled(sample, t).clone()))
        if len(steps) == 3:
            raise Stop
        return step(answer, t, sample, **more)

    scheduler.step = recorded
    question: dict[str, Any] = (
        {"prompt": prompt} if backbone.learned.slots else {"class_labels": [11]}
    )
    question |= backbone.runner.call
    generator = torch.Generator().manual_seed(5)
    try:
        with suppress(Stop):
            backbone.pipe(**question, num_inference_steps=3, generator=generator)
    finally:
        del scheduler.step
    assert len(steps) == 3
    return steps


def flow(**config: Any) -> Any:
    """Return the scheduler of a flow."""
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def frames(kind: Any) -> Any:
    """Return an autoencoder of frames that halves a picture's sides once."""
    mean, std = [0.3, -0.2, 0.1, 0.5], [1.5, 0.7, 1.1, 2.0]
    return kind(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=mean,
        latents_std=std,
        **({"scale_factor_spatial": 2} if kind is diffusers.AutoencoderKLWan else {}),
    )


def _z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=WIDTH,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=list(ROPE),
        axes_lens=[1024, 32, 32],
    )
    encoder = decoder(transformers.Qwen3Config, transformers.Qwen3Model, head_dim=16)
    scheduler = flow(shift=3.0)
    autoencoder = vae(4, scaling_factor=0.3611, shift_factor=0.1159)
    return diffusers.ZImagePipeline(scheduler, autoencoder, encoder, tokenizer(), transformer)


def _qwen() -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=ROPE,
        **HEADS,
    )
    text = {
        **DECODER,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=1, video_token_id=1
    )
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config)
    scheduler = flow(use_dynamic_shifting=True, shift_terminal=0.02, max_shift=0.9)
    autoencoder = frames(diffusers.AutoencoderKLQwenImage)
    return diffusers.QwenImagePipeline(scheduler, autoencoder, encoder, tokenizer(), transformer)


def _lumina() -> Any:
    encoder, words = gemma()
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=WIDTH,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=ROPE,
        axes_lens=(300, 32, 32),
        cap_feat_dim=16,
    )
    autoencoder = diffusers.AutoencoderKL(  # the pipeline takes one that halves sides three times
        **kl_config(
            (4,) * 4, norm_num_groups=4, sample_size=64, scaling_factor=0.36, shift_factor=0.12
        )
    )
    return diffusers.Lumina2Pipeline(transformer, flow(shift=6.0), autoencoder, encoder, words)


def _cogview() -> Any:
    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        text_embed_dim=WIDTH,
        time_embed_dim=WIDTH,
        condition_dim=8,
        sample_size=8,
        rope_axes_dim=(16, 16),
        **HEADS,
    )
    encoder = decoder(transformers.GlmConfig, transformers.GlmModel, head_dim=16)
    scheduler = flow(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
    )
    return diffusers.CogView4Pipeline(tokenizer("left"), encoder, vae(4), transformer, scheduler)


def _chroma() -> Any:
    encoder, words = t5(WIDTH)
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=ROPE,
        approximator_num_channels=8,
        approximator_hidden_dim=WIDTH,
        approximator_layers=1,
        **HEADS,
    )
    autoencoder = vae(4, scaling_factor=0.3611, shift_factor=0.1159)
    return diffusers.ChromaPipeline(flow(), autoencoder, encoder, words, transformer)


def _flux_2() -> Any:
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        **HEADS,
    )
    text = {**DECODER, "num_hidden_layers": 30, "model_type": "mistral", "head_dim": 16}
    vision = {
        "model_type": "pixtral",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 16,
    }
    encoder = transformers.Mistral3ForConditionalGeneration(
        transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=1)
    )
    autoencoder = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    autoencoder.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    autoencoder.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
    scheduler = flow(use_dynamic_shifting=True, shift=3.0)
    return diffusers.Flux2Pipeline(scheduler, autoencoder, encoder, tokenizer(), transformer)


def _wan() -> Any:
    encoder, words = umt5()
    transformer = diffusers.WanTransformer3DModel(
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=WIDTH,
        num_layers=1,
        rope_max_seq_len=32,
        **HEADS,
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    autoencoder = frames(diffusers.AutoencoderKLWan)
    return diffusers.WanPipeline(words, encoder, autoencoder, scheduler, transformer)


def _aura() -> Any:
    encoder, words = umt5()
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pos_embed_max_size=64,
        **HEADS,
    )
    autoencoder = vae(4, scaling_factor=0.13025)
    return diffusers.AuraFlowPipeline(words, encoder, autoencoder, transformer, flow(shift=1.73))


def _hunyuan() -> Any:
    encoder_2, words_2 = t5(WIDTH)
    config = transformers.BertConfig(
        vocab_size=104,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    transformer = diffusers.HunyuanDiT2DModel(
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=WIDTH,
        num_layers=2,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        **HEADS,
    )
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )
    autoencoder, encoder = vae(4, scaling_factor=0.13025), transformers.BertModel(config)
    parts = (autoencoder, encoder, tokenizer(), transformer, scheduler)
    return diffusers.HunyuanDiTPipeline(
        *parts, None, None, False, text_encoder_2=encoder_2, tokenizer_2=words_2
    )


def _glm() -> Any:
    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=104,
        hidden_size=WIDTH,
        ffn_hidden_size=WIDTH,
        kv_channels=16,
        num_attention_heads=2,
        seq_length=256,
        add_qkv_bias=True,
        multi_query_attention=True,
        multi_query_group_num=1,
        original_rope=True,
        use_cache=False,
    )
    model = ChatGLMModel(config, empty_init=False)
    for parameter in model.parameters():  # some are made without values
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def _kolors() -> Any:
    unet = unet_told_sizes(
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear", num_train_timesteps=1100
    )
    autoencoder = vae(4, scaling_factor=0.13025)
    return diffusers.KolorsPipeline(autoencoder, _glm(), glm_tokenizer(), unet, scheduler)


def _stable(kind: Any, scheduler: Any, **config: Any) -> Any:
    encoder, words = clip()
    unet = diffusers.UNet2DConditionModel(**{**UNETS["sd15"], "cross_attention_dim": 16, **config})
    return kind(
        vae(scaling_factor=0.18215), encoder, words, unet, scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def _stable_diffusion() -> Any:
    return _stable(diffusers.StableDiffusionPipeline, diffusers.DDIMScheduler(**DDIM_BETAS))


def _consistency() -> Any:
    scheduler = diffusers.LCMScheduler(**DDIM_BETAS)
    kind = diffusers.LatentConsistencyModelPipeline
    return _stable(kind, scheduler, time_cond_proj_dim=16)


MAKERS: dict[str, Callable[[], Any]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "LatentConsistencyModelPipeline": _consistency,
    "ZImagePipeline": _z_image,
    "QwenImagePipeline": _qwen,
    "Lumina2Pipeline": _lumina,
    "CogView4Pipeline": _cogview,
    "ChromaPipeline": _chroma,
    "Flux2Pipeline": _flux_2,
    "WanPipeline": _wan,
    "AuraFlowPipeline": _aura,
    "HunyuanDiTPipeline": _hunyuan,
    "KolorsPipeline": _kolors,
}


def _is_offered(kind: str) -> bool:
    try:
        return hasattr(diffusers, kind)
    except RuntimeError:  # diffusers 0.33 imports Wan's pipeline with ftfy alone
        return False


RELEASED = tuple(filter(_is_offered, MAKERS))
