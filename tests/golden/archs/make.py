"""Writes small random checkpoints, each with the logits that transformers computes for it.

Usage: make.py OUTPUT_DIRECTORY [NAME...]     (transformers 5.17.0; 5.24.0 for the
mixtures of experts but Mixtral and for Gemma 3; torch 2.15, safetensors)

Each directory holds config.json, model.safetensors, input_ids.npy (int32 [2, 32]) and expected.npy
(float32 logits, or the last hidden state of an encoder), computed in float32 with eager attention
from the weights as they are stored (rounded to F16 or BF16 where they are). Random weights have a
standard deviation of 0.2, so that logits are not flat. What was written is read back by
transformers and must give the same logits. transformers writes only the newest spelling of a
config; `old` rewrites it as older releases did, without changing what it means. ropes.json has the
frequencies of rotary embeddings and the slopes of ALiBi at real sizes.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers as t
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

LENGTH = 32
SMALL = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)


def randomize(model, seed, dtype):
    """Random parameters with values of the stored type; buffers (frequencies) stay exact."""
    generator = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.ndim == 1 and "norm" in name.lower() or ".ln_" in name
            router = "mlp.gate.weight" in name or "router.weight" in name
            scale = 1.0 if router or "sinks" in name else 0.2
            center = 1.0 if is_norm and name.endswith("weight") and not gemma else 0.0
            parameter.copy_((center + scale * noise).to(dtype).float())
        for name, buffer in model.named_buffers():
            if "correction_bias" in name:
                noise = torch.randn(buffer.shape, generator=generator)
                buffer.copy_((0.3 * noise).to(dtype).float())


def old_rope(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    partial = rope.pop("partial_rotary_factor", None)
    if partial is not None and partial != 1.0:
        config["partial_rotary_factor"] = partial
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)


def old(config):
    """Keys as in files of transformers before 5: no layer_types, rope at the top level."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    config.pop("layer_types", None)
    config["transformers_version"] = "4.40.0"
    if "rope_parameters" in config:
        old_rope(config)


def old_neox(config):
    old(config)
    config["rotary_emb_base"] = config.pop("rope_theta")
    config["rotary_pct"] = config.pop("partial_rotary_factor")
    config.pop("rope_scaling")


def old_phi3(config):
    rope = config["rope_parameters"]
    config["original_max_position_embeddings"] = rope.pop("original_max_position_embeddings")
    rope.pop("factor", None)
    old(config)
    config["rope_scaling"]["type"] = "su"


def old_llama3(config):
    old(config)
    config["rope_scaling"]["rope_type"] = config["rope_scaling"].pop("type")


def old_bloom(config):
    old(config)
    config["n_embed"] = config.pop("hidden_size")
    config["num_attention_heads"] = config.pop("n_head")


def old_gemma(config):
    old(config)
    config["hidden_act"] = "gelu"


def old_gemma3(config):
    ropes = config.pop("rope_parameters")
    config["rope_theta"] = ropes["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = ropes["full_attention"]
    config["sliding_window_pattern"] = 2
    old(config)


def seen_with_images(config):
    """The config of a model that sees images, of which the text part leaves defaults out."""
    old_gemma3(config)
    text = dict(config)
    for key in ("num_attention_heads", "num_key_value_heads", "query_pre_attn_scalar"):
        del text[key]
    config.clear()
    config.update(model_type="gemma3", text_config=text)


def no_kv_heads(config):
    old(config)
    del config["num_key_value_heads"]
    config.pop("head_dim", None)


def strip(prefix):
    def change(tensors):
        return {k.removeprefix(prefix): v for k, v in tensors.items()}
    return change


def without_head(prefix):
    def change(tensors):
        tensors = {k: v for k, v in tensors.items() if not k.startswith("lm_head")}
        return strip(prefix)(tensors)
    return change


def with_gpt2_masks(tensors):
    tensors = strip("transformer.")(tensors)
    tensors["h.0.attn.bias"] = torch.tril(torch.ones(1, 1, 8, 8)).to(torch.uint8)
    tensors["h.0.attn.masked_bias"] = torch.tensor(-10000.0)
    return tensors


def with_inv_freq(tensors):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    return tensors


def with_stored_head(tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    return tensors


def language_model(tensors):
    return {"language_model." + k: v for k, v in tensors.items()}


def random_mxfp4(model, generator):
    """Experts in MXFP4 as transformers reads them; the model gets their values."""
    packed = {}
    for name, parameter in model.named_parameters():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            continue
        experts, cols, rows = parameter.shape
        shape = (experts, rows, cols // 32)
        blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(122, 125, shape, dtype=torch.uint8, generator=generator)
        packed[name + "_blocks"], packed[name + "_scales"] = blocks, scales
        with torch.no_grad():
            parameter.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
    return packed


def opt_old_prefix(tensors):
    return without_head("model.")(tensors)


def bert_old_names(tensors):
    renamed = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        name = name.replace("LayerNorm.bias", "LayerNorm.beta")
        renamed["bert." + name] = value
    return renamed


def llama(**kwargs):
    rope = kwargs.pop("rope", {"rope_type": "default", "rope_theta": 10000.0})
    return t.LlamaForCausalLM, t.LlamaConfig(**{**SMALL, "rope_parameters": rope, **kwargs})


def family(model, config, **kwargs):
    return model, config(**{**SMALL, **kwargs})


def rope(kind, theta=10000.0, **kwargs):
    return {"rope_type": kind, "rope_theta": theta, **kwargs}


def gpt2(**kwargs):
    return t.GPT2LMHeadModel, t.GPT2Config(
        vocab_size=64, n_positions=48, n_embd=32, n_layer=2, n_head=4, bos_token_id=1,
        eos_token_id=2, **kwargs)


def bloom(**kwargs):
    return t.BloomForCausalLM, t.BloomConfig(
        **{**dict(vocab_size=64, hidden_size=36, n_layer=2, bos_token_id=1, eos_token_id=2),
           **kwargs})


def opt(**kwargs):
    return t.OPTForCausalLM, t.OPTConfig(
        **{**dict(vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
                  num_attention_heads=4, max_position_embeddings=40, word_embed_proj_dim=32,
                  pad_token_id=1, bos_token_id=1, eos_token_id=2), **kwargs})


F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
LONG = [1.0, 1.5, 2.5, 4.0]
SHORT = [1.0, 1.1, 1.2, 1.4]
PHI3 = (t.Phi3ForCausalLM, t.Phi3Config)
QWEN2 = (t.Qwen2ForCausalLM, t.Qwen2Config)
QWEN3 = (t.Qwen3ForCausalLM, t.Qwen3Config)
GEMMA2 = (t.Gemma2ForCausalLM, t.Gemma2Config)
QWEN3_MOE = (t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig)
GEMMA3 = (t.Gemma3ForCausalLM, t.Gemma3TextConfig)
GPT_OSS = (t.GptOssForCausalLM, t.GptOssConfig)
DEEPSEEK_V3 = (t.DeepseekV3ForCausalLM, t.DeepseekV3Config)
MISTRAL = (t.MistralForCausalLM, t.MistralConfig)
MIXTRAL = (t.MixtralForCausalLM, t.MixtralConfig)
NEOX = (t.GPTNeoXForCausalLM, t.GPTNeoXConfig)
BERT = (t.BertModel, t.BertConfig)
MIXED = ["sliding_attention", "full_attention"]

# name: (model and config, stored type, change of config.json, change of the tensors)
CASES = {
    "llama_mqa_bias_headdim": (llama(num_key_value_heads=1, head_dim=16, attention_bias=True,
                                     mlp_bias=True, rope=rope("default", 5e5)), F32, old, None),
    "llama_odd_sizes": (llama(vocab_size=61, hidden_size=30, intermediate_size=45,
                              num_attention_heads=3, tie_word_embeddings=True),
                        F16, no_kv_heads, with_inv_freq),
    "llama_linear_old": (llama(rope=rope("linear", factor=4.0), num_key_value_heads=2), F16, old,
                         strip("model.")),
    "llama_dynamic_old": (llama(rope=rope("dynamic", factor=2.0), max_position_embeddings=16),
                          F32, old, None),
    "llama_dynamic_short": (llama(rope=rope("dynamic", factor=2.0)), F16, None, None),
    "llama_yarn": (llama(rope=rope("yarn", factor=4.0, original_max_position_embeddings=8)), F32,
                   None, None),
    "llama_yarn_mscale_old": (llama(rope=rope(
        "yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=1.3,
        beta_fast=4.0, beta_slow=0.5, truncate=False)), F16, old, None),
    "llama_yarn_attention_factor": (llama(rope=rope(
        "yarn", 1e5, factor=8.0, original_max_position_embeddings=8, attention_factor=1.25)),
        BF16, old, None),
    "llama_llama3_old": (llama(hidden_size=40, num_attention_heads=5, rope=rope(
        "llama3", 5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16)), F16, old_llama3, None),
    "llama_longrope": (llama(rope=rope("longrope", short_factor=SHORT, long_factor=LONG,
                                       factor=4.0, original_max_position_embeddings=16)), F16,
                       None, None),
    "mistral_window_old": (family(*MISTRAL, hidden_size=30, num_attention_heads=3,
                                  num_key_value_heads=1, sliding_window=5), BF16, old, None),
    "mistral_full_headdim": (family(*MISTRAL, num_key_value_heads=2, head_dim=12,
                                    sliding_window=None), F16, old, None),
    "mixtral_window_old": (family(*MIXTRAL, num_key_value_heads=2, sliding_window=6,
                                  intermediate_size=32, num_local_experts=4), F16, old, None),
    "mixtral_fused_experts": (family(*MIXTRAL, num_key_value_heads=4, intermediate_size=24,
                                     num_local_experts=5, num_experts_per_tok=3), F16, None,
                              "state_dict"),
    "qwen2_windows_old": (family(*QWEN2, num_key_value_heads=2, use_sliding_window=True,
                                 sliding_window=6, max_window_layers=1), F16, old, None),
    "qwen2_layer_types_tied": (family(*QWEN2, num_key_value_heads=1, use_sliding_window=True,
                                      sliding_window=9, layer_types=MIXED,
                                      tie_word_embeddings=True), BF16, None, with_stored_head),
    "qwen3_windows_bias": (family(*QWEN3, num_key_value_heads=2, head_dim=12, attention_bias=True,
                                  use_sliding_window=True, sliding_window=7, layer_types=MIXED),
                           F16, None, None),
    "qwen3_mqa_old": (family(*QWEN3, num_key_value_heads=1, head_dim=8, tie_word_embeddings=True),
                      F32, old, None),
    "gemma2_old": (family(*GEMMA2, num_key_value_heads=2, head_dim=12, sliding_window=6,
                          query_pre_attn_scalar=24), F16, old_gemma, None),
    "gemma2_no_caps_bias": (family(*GEMMA2, num_key_value_heads=1, head_dim=8, sliding_window=5,
                                   attn_logit_softcapping=None, final_logit_softcapping=None,
                                   attention_bias=True, hidden_activation="gelu",
                                   layer_types=MIXED[::-1]), F16, None, None),
    "qwen3_moe_fused": (family(*QWEN3_MOE, num_key_value_heads=2, head_dim=12, num_experts=6,
                               num_experts_per_tok=3, moe_intermediate_size=20,
                               norm_topk_prob=True), F16, None, "state_dict"),
    "qwen3_moe_dense_layers_old": (family(
        *QWEN3_MOE, num_hidden_layers=3, num_key_value_heads=2, head_dim=8, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=12, mlp_only_layers=[1],
        use_sliding_window=True, sliding_window=7, attention_bias=True), BF16, old, None),
    "gemma3_two_ropes": (family(*GEMMA3, num_key_value_heads=2, head_dim=12, sliding_window=6,
                                query_pre_attn_scalar=24, layer_types=MIXED,
                                rope_parameters={"sliding_attention": rope("default", 100.0),
                                                 "full_attention": rope("linear", 1e4, factor=8.0)}
                                ), F16, None, None),
    "gemma3_images_old": (family(*GEMMA3, num_attention_heads=8, num_key_value_heads=4, head_dim=6,
                                 sliding_window=5, query_pre_attn_scalar=256, layer_types=MIXED, rope_parameters={
                                     "sliding_attention": rope("default", 1e4),
                                     "full_attention": rope("linear", 1e6, factor=8.0)}), BF16,
                          seen_with_images, language_model),
    "gpt_oss_sinks": (family(*GPT_OSS, num_key_value_heads=2, head_dim=8, num_local_experts=4,
                             num_experts_per_tok=2, intermediate_size=24, sliding_window=5,
                             layer_types=MIXED, rope_parameters=rope(
                                 "yarn", 15e4, factor=4.0, truncate=False,
                                 original_max_position_embeddings=16)), BF16, None, None),
    "gpt_oss_mxfp4": (family(*GPT_OSS, hidden_size=32, num_key_value_heads=1, head_dim=8,
                             num_local_experts=3, num_experts_per_tok=2, intermediate_size=64,
                             sliding_window=5, layer_types=MIXED), BF16, None, None),
    "deepseek_v3_groups": (family(
        *DEEPSEEK_V3, num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=3, n_group=4,
        topk_group=2, moe_intermediate_size=12, first_k_dense_replace=1, q_lora_rank=20,
        kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, num_mtp_layers=0,
        rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0,
                             mscale_all_dim=1.0)), BF16, None, None),
    "deepseek_v3_direct_queries": (family(
        *DEEPSEEK_V3, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, n_shared_experts=2, moe_intermediate_size=12, first_k_dense_replace=0,
        q_lora_rank=None, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=10,
        norm_topk_prob=False, rope_interleave=False, attention_bias=True, num_mtp_layers=0), F16,
        old, None),
    "phi3_longrope_long_old": (family(
        *PHI3, num_key_value_heads=2, hidden_size=64, rope_parameters=rope(
            "longrope", short_factor=SHORT, long_factor=LONG, partial_rotary_factor=0.5,
            original_max_position_embeddings=16), original_max_position_embeddings=16), F16,
        old_phi3, None),
    "phi3_longrope_short": (family(*PHI3, num_key_value_heads=4, rope_parameters=rope(
        "longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=32),
        original_max_position_embeddings=32), BF16, None, None),
    "phi3_window_old": (family(*PHI3, num_key_value_heads=1, sliding_window=6), F16, old, None),
    "opt_post_norm_projection": (opt(do_layer_norm_before=False, word_embed_proj_dim=20), F16, old,
                                 opt_old_prefix),
    "opt_no_final_norm": (opt(_remove_final_layer_norm=True, activation_function="gelu",
                              num_attention_heads=2), F16, old, None),
    "opt_plain_norm_no_bias": (opt(layer_norm_elementwise_affine=False, enable_bias=False,
                                   tie_word_embeddings=False), F16, None, None),
    "bloom_post_layernorm": (bloom(n_head=6, apply_residual_connection_post_layernorm=True), F16,
                             None, None),
    "bloom_three_heads_old": (bloom(n_head=3), F16, old_bloom, without_head("transformer.")),
    "gpt_neox_serial_old": (family(*NEOX, use_parallel_residual=False, hidden_act="gelu_fast",
                                   attention_bias=False, rope_parameters=rope(
                                       "default", 5000.0, partial_rotary_factor=0.5)), F16,
                            old_neox, None),
    "gpt_neox_odd_rotary": (family(*NEOX, hidden_size=36, num_attention_heads=3,
                                   tie_word_embeddings=True, hidden_act="gelu_new",
                                   rope_parameters=rope("linear", factor=2.0,
                                                        partial_rotary_factor=0.25)), F16, None,
                            None),
    "gpt2_inverse_layer_scale": (gpt2(scale_attn_by_inverse_layer_idx=True, n_inner=40), F16, None,
                                 with_gpt2_masks),
    "gpt2_unscaled_untied": (gpt2(scale_attn_weights=False, activation_function="relu",
                                  tie_word_embeddings=False), F32, old, None),
    "bert_gelu_new_old": (family(*BERT, hidden_act="gelu_new", max_position_embeddings=40), F16,
                          old, bert_old_names),
    "bert_relu_one_type": (family(*BERT, hidden_act="relu", type_vocab_size=1, hidden_size=30,
                                  num_attention_heads=5, max_position_embeddings=32), F16, None,
                           None),
}


def run(model, ids):
    with torch.no_grad():
        output = model(input_ids=ids)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def write(directory, name, seed):
    (model_class, config), dtype, change_config, change_tensors = CASES[name]
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    randomize(model, seed, dtype)
    packed = {}
    if name == "gpt_oss_mxfp4":
        packed = random_mxfp4(model, torch.Generator().manual_seed(seed))
    ids = torch.randint(0, config.vocab_size, (2, LENGTH),
                        generator=torch.Generator().manual_seed(seed + 1000))
    expected = run(model, ids)

    path = directory / name
    model.save_pretrained(path)
    file = path / "model.safetensors"
    if change_tensors == "state_dict":  # names of the modules, not those of the checkpoint
        tensors = dict(model.state_dict())
    else:
        tensors = load_file(file)
        tensors = change_tensors(tensors) if change_tensors else tensors
    tensors = {k: v.to(dtype).contiguous() if v.is_floating_point() else v
               for k, v in tensors.items()}
    if packed:
        tensors = {k: v for k, v in tensors.items() if not k.endswith(("gate_up_proj", "down_proj"))}
        tensors.update(packed)
    save_file(tensors, file, metadata={"format": "pt"})
    (path / "generation_config.json").unlink(missing_ok=True)
    text = json.loads((path / "config.json").read_text())
    text["dtype"] = str(dtype).removeprefix("torch.")
    if packed:
        text["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": []}
    if change_config:
        change_config(text)
    (path / "config.json").write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    # transformers 5 cannot read "su" any more, nor a text model out of one that sees images
    if name not in ("phi3_longrope_long_old", "gemma3_images_old", "gpt_oss_mxfp4"):
        again = model_class.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
        error = (run(again.eval(), ids) - expected).abs().max().item()
        assert error < 1e-5, f"{name}: read back, the logits differ by {error}"
    np.save(path / "input_ids.npy", ids.numpy().astype(np.int32))
    np.save(path / "expected.npy", expected.numpy().astype(np.float32))
    print(f"{name}: logits of standard deviation {expected.std().item():.2f}")


# name: (head size, max_position_embeddings, rope_parameters); lengths follow below
ROPES = {
    "default": (128, 4096, rope("default")),
    "linear": (64, 4096, rope("linear", factor=8.0)),
    "dynamic": (128, 2048, rope("dynamic", factor=4.0)),
    "llama3": (128, 131072, rope("llama3", 5e5, factor=8.0, low_freq_factor=1.0,
                                 high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "yarn": (128, 131072, rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=32768)),
    "yarn_not_truncated": (64, 8192, rope("yarn", 15e4, factor=32.0, truncate=False, beta_fast=24.0,
                                          beta_slow=2.0, original_max_position_embeddings=4096)),
    "yarn_mscale": (64, 163840, rope("yarn", factor=40.0, original_max_position_embeddings=4096,
                                     mscale=0.707, mscale_all_dim=1.5)),
    "longrope": (96, 131072, rope("longrope", original_max_position_embeddings=4096,
                                  short_factor=[1 + 0.05 * i for i in range(48)],
                                  long_factor=[1 + i**1.5 / 8 for i in range(48)])),
}
LENGTHS = [1, 2048, 2049, 4096, 4097, 70000]


def write_ropes(path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    rows = []
    for name, (head_dim, max_positions, parameters) in ROPES.items():
        config = t.LlamaConfig(head_dim=head_dim, max_position_embeddings=max_positions,
                               rope_parameters=dict(parameters))
        default = LlamaRotaryEmbedding.compute_default_rope_parameters
        compute = ROPE_INIT_FUNCTIONS.get(parameters["rope_type"], default)
        for length in LENGTHS:
            # a tensor, as in a forward pass: the base of dynamic scaling is then float32
            frequencies, scale = compute(config, None, seq_len=torch.tensor(length))
            rows.append(dict(name=name, head_dim=head_dim, max_position_embeddings=max_positions,
                             rope_parameters=parameters, length=length, scale=scale,
                             inv_freq=frequencies.double().tolist()))
    slopes = {}
    for heads in [1, 2, 3, 6, 8, 12, 25, 40, 112]:
        alibi = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)
        slopes[heads] = alibi[:, 0, 1].double().tolist()
    path.write_text(json.dumps(dict(ropes=rows, alibi_slopes=slopes)))


def main():
    directory = pathlib.Path(sys.argv[1])
    if len(sys.argv) == 2 or "ropes.json" in sys.argv[2:]:
        write_ropes(directory / "ropes.json")
    for seed, name in enumerate(CASES):
        if len(sys.argv) == 2 or name in sys.argv[2:]:
            write(directory, name, seed)


if __name__ == "__main__":
    main()
