"""A FLUX.1 Kontext pipeline of the real classes, as small as its configs allow, with random weights; and LoRAs for it.

The shapes are those of diffusers' own tests (tests/pipelines/flux/test_pipeline_flux_kontext.py); the tokenizers are
made here, since nothing can be fetched. A few hundred kilobytes; a picture takes a fraction of a second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_WORDS: Final = 300
_BLOCKS: Final = 4


def save_model(folder: Path, seed: int = 0) -> Path:
    """Save a pipeline with weights of this seed."""
    _pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder


def save_lora(file: Path, seed: int, *, with_text_encoder: bool = True) -> Path:
    """Save LoRA weights that change what the model makes so much that one sees it."""
    pipeline = _pipeline(0)
    torch.manual_seed(seed)
    layers = ["to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out", "x_embedder"]
    parts: dict[str, Any] = {"transformer_lora_layers": _layers(pipeline.transformer, layers)}
    if with_text_encoder:
        parts["text_encoder_lora_layers"] = _layers(pipeline.text_encoder, ["q_proj", "k_proj", "v_proj", "out_proj"])
    file.parent.mkdir(parents=True, exist_ok=True)
    FluxKontextPipeline.save_lora_weights(file.parent, weight_name=file.name, **parts)
    return file


def save_registry(file: Path, weights: dict[str, Path], **keys: Any) -> Path:
    """A registry with a style for each of the weights."""
    styles = {
        name: {
            "path": str(path.parent),
            "weights": path.name,
            "description": f"the style {name}",
            "prompt": f"<make it {name.lower()}>",
            "negative_prompt": "grey",
            "lora_scale": 1.0,
            "text_encoder_scale": 0.5,
            **keys,
        }
        for name, path in weights.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(styles), encoding="utf-8")
    return file


def _layers(part: Any, names: list[str]) -> Any:
    part.add_adapter(LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=names), adapter_name="new")
    return get_peft_model_state_dict(part, adapter_name="new")


def _pipeline(seed: int) -> Any:
    torch.manual_seed(seed)
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
            guidance_embeds=True,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=1,
                hidden_size=32,
                intermediate_size=37,
                num_attention_heads=4,
                num_hidden_layers=2,
                vocab_size=_WORDS,
                projection_dim=32,
            )
        ),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=_WORDS, d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2)
        ),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=T5TokenizerFast(
            vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((each, -3.0) for each in _LETTERS)],
            extra_ids=0,
        ),
        vae=AutoencoderKL(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            block_out_channels=(4,) * _BLOCKS,
            down_block_types=("DownEncoderBlock2D",) * _BLOCKS,
            up_block_types=("UpDecoderBlock2D",) * _BLOCKS,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.0609,
            scaling_factor=1.5035,
        ),
    )


def _clip_tokenizer() -> Any:
    words = ["<|startoftext|>", "!", "<|endoftext|>", *_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<", ">"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
