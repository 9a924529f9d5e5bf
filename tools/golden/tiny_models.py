"""Tiny random models of every family with the logits that transformers gives them.

Run with the packages of requirements.txt: python tiny_models.py ../../crates/policy/tests/fixtures
Each model: config.json, model.safetensors (float32), tokenizer.json, expected.json with ragged
inputs, logits, the log-probability of each next token, and the gradient of their mean with respect
to three parameters (first 8 numbers and the norm).
"""

import json, os, sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

out = sys.argv[1]
V = 96
shared = dict(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
llama3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
MODELS = {
    "llama": LlamaForCausalLM(LlamaConfig(**shared, tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "llama3": LlamaForCausalLM(LlamaConfig(**shared, rope_parameters=llama3, head_dim=8, attention_bias=True, mlp_bias=True)),
    "mistral": MistralForCausalLM(MistralConfig(**shared, sliding_window=None, head_dim=16)),
    "qwen2": Qwen2ForCausalLM(Qwen2Config(**shared)),
    "qwen3": Qwen3ForCausalLM(Qwen3Config(**shared, head_dim=16, tie_word_embeddings=True)),
}
for n, (name, model) in enumerate(MODELS.items()):
    g = torch.Generator().manual_seed(n)
    with torch.no_grad():
        for k, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(1 + 0.1 * noise if k.endswith("norm.weight") else 0.25 * noise if p.dim() > 1 else 0.1 * noise)
    model = model.float().eval()
    d = os.path.join(out, name)
    model.save_pretrained(d)
    tok = Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w3"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="w1", eos_token="w2", pad_token="w0", unk_token="w3").save_pretrained(d)
    # Without the padding id: transformers masks it, and gives it no gradient.
    inputs = [torch.randint(3, V, (length,), generator=g).tolist() for length in (1, 7, 23, 40)]
    cases, total, count = [], 0.0, 0
    for ids in inputs:
        logits = model(torch.tensor([ids])).logits[0]
        logps = torch.log_softmax(logits[:-1], -1).gather(-1, torch.tensor(ids[1:]).view(-1, 1)).view(-1)
        total, count = total + logps.sum(), count + len(logps)
        cases.append(dict(ids=ids, logits=[[round(x, 6) for x in row] for row in logits[[0, -1]].tolist()],
                          logps=[round(x, 6) for x in logps.tolist()]))
    (-total / count).backward()
    named = dict(model.named_parameters())
    grads = {}
    for k in ("model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.down_proj.weight",
              "model.layers.0.input_layernorm.weight"):
        flat = named[k].grad.reshape(-1)
        grads[k] = dict(first=flat[:8].tolist(), norm=flat.norm().item())
    greedy = model.generate(torch.tensor([inputs[1]]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(inputs[1]):].tolist()
    json.dump(dict(cases=cases, loss=(-total / count).item(), grads=grads, greedy=greedy), open(os.path.join(d, "expected.json"), "w"))
    for junk in ("generation_config.json", "special_tokens_map.json"):
        p = os.path.join(d, junk)
        if os.path.exists(p): os.remove(p)
