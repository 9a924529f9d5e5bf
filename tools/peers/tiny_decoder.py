"""Training steps of a small decoder in eager PyTorch, for `cargo xtask bench tiny` and `bench peers`.

tiny_decoder.py FOLDER STEPS THREADS
FOLDER has what `bench tiny --folder` writes: config.json, model.safetensors and batches.json (a list of batches of equally long
lists of token ids). Next-token loss, clipping at 1, AdamW. Prints one JSON object as trl_dpo.py does.
"""

import json, sys, time

import place
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder, steps, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
c = json.load(open(f"{folder}/config.json"))
w = {name: torch.nn.Parameter(x.to(place.device)) for name, x in load_file(f"{folder}/model.safetensors").items()}
batches = torch.tensor(json.load(open(f"{folder}/batches.json")), device=place.device)
heads = c["num_attention_heads"]
dim = c["hidden_size"] // heads
theta = c.get("rope_theta") or c["rope_parameters"]["rope_theta"]
angles = torch.outer(torch.arange(batches.shape[2] - 1).float(), theta ** (-torch.arange(0, dim, 2).float() / dim))
angles = torch.cat([angles, angles], 1).to(place.device)
cos, sin = angles.cos(), angles.sin()


def norm(x, name):
    return F.rms_norm(x, x.shape[-1:], w[name], c["rms_norm_eps"])


def turn(x):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def loss_of(ids):
    b, t = ids.shape[0], ids.shape[1] - 1
    x = F.embedding(ids[:, :-1], w["model.embed_tokens.weight"])
    for i in range(c["num_hidden_layers"]):
        part = lambda name, x: F.linear(x, w[f"model.layers.{i}.{name}.weight"])
        n = norm(x, f"model.layers.{i}.input_layernorm.weight")
        q, k, v = (part(f"self_attn.{p}_proj", n).view(b, t, heads, dim).transpose(1, 2) for p in "qkv")
        a = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        x = x + part("self_attn.o_proj", a.transpose(1, 2).reshape(b, t, -1))
        n = norm(x, f"model.layers.{i}.post_attention_layernorm.weight")
        x = x + part("mlp.down_proj", F.silu(part("mlp.gate_proj", n)) * part("mlp.up_proj", n))
    logits = F.linear(norm(x, "model.norm.weight"), w["model.embed_tokens.weight"])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


adam = torch.optim.AdamW(w.values(), lr=1e-3, weight_decay=0.0, eps=1e-8)
result = []
for step in range(steps):
    place.wait()
    started = time.perf_counter()
    loss = loss_of(batches[step % len(batches)])
    adam.zero_grad(set_to_none=True)
    loss.backward()
    size = torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
    adam.step()
    place.wait()
    seconds = time.perf_counter() - started
    result.append({"seconds": seconds, "loss": loss.item(), "grad_norm": size.item()})
print(json.dumps({"steps": result, "peak_bytes": place.peak_bytes()}))
