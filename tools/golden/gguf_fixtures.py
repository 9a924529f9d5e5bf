"""Tiny GGUF files with what the gguf package, tokenizers and transformers make of them.

Run with the packages of requirements.txt: python gguf_fixtures.py ../../crates/policy/tests/fixtures/gguf
quants.gguf: a tensor of every type that Togi reads, and metadata of every type. The others are whole
models. expected.json: dequantised values; ids of texts; logits and first numbers of parameters.
"""

import json, os, sys, gguf, numpy, torch
from gguf import GGMLQuantizationType as Q, GGUFValueType as T
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
rng = numpy.random.default_rng(7)
expected = dict(quants={}, models={})


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def halves(n, scale):
    return (rng.uniform(-scale, scale, n)).astype(numpy.float16).view(numpy.uint8).reshape(n, 2)


w = gguf.GGUFWriter(os.path.join(out, "quants.gguf"), "llama")
w.add_custom_alignment(64)
for name, value, kind in [("u8", 250, T.UINT8), ("i8", -3, T.INT8), ("u16", 65000, T.UINT16), ("i16", -300, T.INT16),
                          ("u32", 4000000000, T.UINT32), ("i32", -70000, T.INT32), ("u64", 2**63 + 5, T.UINT64),
                          ("i64", -2**40, T.INT64), ("f32", 1e-5, T.FLOAT32), ("f64", 0.1, T.FLOAT64),
                          ("bool", True, T.BOOL), ("text", "naïve ☕", T.STRING)]:
    w.add_key_value(f"test.{name}", value, kind)
w.add_array("test.texts", ["a", "", "ü"])
w.add_array("test.numbers", [1, -2, 3])
w.add_array("test.nested", [[1, 2], [3]])
for kind in (Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q6_K):
    x = rng.normal(0, 0.5, (2, 256 if kind in (Q.Q4_K, Q.Q6_K) else 64)).astype(numpy.float32)
    if kind == Q.Q4_K:  # gguf only dequantises it: random bytes under sane scales
        raw = numpy.concatenate([halves(2, 0.02), halves(2, 0.02), rng.integers(0, 256, (2, 140), numpy.uint8)], 1)
    elif kind == Q.Q6_K:
        raw = numpy.concatenate([rng.integers(0, 256, (2, 208), numpy.uint8), halves(2, 0.002)], 1)
    else:
        raw = gguf.quants.quantize(x, kind)
    w.add_tensor(kind.name, raw, raw_dtype=kind)
    expected["quants"][kind.name] = [float(v) for v in gguf.quants.dequantize(raw, kind).astype(numpy.float32).ravel()]
finish(w)

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["The quick brown fox jumps over the lazy dog. In 1984 there were 12345 dogs; it's the foxes' 2nd.",
          "for i in range(100):\n    print(i, i * i)\n\n\tdone\n", "naïve café, über straße, 日本語の文字, 🙂🙂 and ½ of it",
          "the the then there this that they're we've I'll DON'T don't"] * 4
TEXTS = CORPUS[:4] + ["", " ", "  12 345 6789", "\n\n x\r\n\r\n y \t", "<|im_start|>user\nhi<|im_end|>\n", "a<tool>b <tool> c",
                      "e\u0301 vs \u00e9", "ﷺ ١٢٣ Ⅷ 五", "\u200d👩\u200d👩\u200d👧 \u00a0 nbsp", "it'S WE'VE 'tis x<|endoftext|><|endoftext|>"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def tokenizer(pre):
    """A tokenizer cut as the models on the hub that this name stands for."""
    b = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    split = lambda p: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated"), b(False)])
    t = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    t.pre_tokenizer = {"gpt-2": b(True), "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), b(True)]),
                       "llama-bpe": split(LLAMA3), "qwen2": split(QWEN2)}[pre]
    if pre == "qwen2":
        t.normalizer = normalizers.NFC()
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, special_tokens=CONTROL, show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens([AddedToken("<tool>", normalized=False)])
    if pre == "llama-bpe":
        t.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    return t


def permuted(x, heads):
    """As convert_hf_to_gguf.py of llama.cpp lays the rows of q and k out."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


SHARED = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=64, rms_norm_eps=1e-5)
linear = dict(rope_type="linear", factor=2.0, rope_theta=5000.0)
theta = lambda x: dict(rope_type="default", rope_theta=x)
MODELS = {
    "llama": ("llama", "smollm", [Q.Q4_1, Q.Q8_0], LlamaForCausalLM, LlamaConfig, dict(tie_word_embeddings=True, rope_parameters=theta(1e5))),
    "llama_biases": ("llama", "gpt-2", [Q.Q8_0, Q.F16], LlamaForCausalLM, LlamaConfig,
                     dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rope_parameters=linear)),
    "qwen2": ("qwen2", "qwen2", [Q.Q5_0, Q.Q4_0], Qwen2ForCausalLM, Qwen2Config, dict(tie_word_embeddings=False, rope_parameters=theta(1e6))),
    "qwen3": ("qwen3", "llama-bpe", [Q.Q5_1, Q.Q8_0], Qwen3ForCausalLM, Qwen3Config,
              dict(tie_word_embeddings=True, head_dim=16, rope_parameters=theta(1e6))),
}
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
for n, (name, (arch, pre, kinds, Model, Config, more)) in enumerate(MODELS.items()):
    tok = tokenizer(pre)
    size, rows = tok.get_vocab_size(), tok.get_vocab_size() + 5
    model = Model(Config(**SHARED, **more, vocab_size=rows)).float().eval()
    c, g = model.config, torch.Generator().manual_seed(n)
    w = gguf.GGUFWriter(os.path.join(out, f"{name}.gguf"), arch)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    for key, value in dict(block_count=2, embedding_length=32, feed_forward_length=64, context_length=64).items():
        w.add_uint32(f"{arch}.{key}", value)
    w.add_uint32(f"{arch}.attention.head_count", 4)
    w.add_uint32(f"{arch}.attention.head_count_kv", 2)
    w.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    w.add_float32(f"{arch}.rope.freq_base", more["rope_parameters"]["rope_theta"])
    if "factor" in more["rope_parameters"]:
        w.add_string(f"{arch}.rope.scaling.type", "linear")
        w.add_float32(f"{arch}.rope.scaling.factor", 2.0)
    if arch == "qwen3":
        w.add_uint32(f"{arch}.attention.key_length", head_dim)
        w.add_uint32(f"{arch}.attention.value_length", head_dim)
    w.add_string("tokenizer.ggml.model", "gpt2")
    w.add_string("tokenizer.ggml.pre", pre)
    w.add_array("tokenizer.ggml.tokens", [tok.id_to_token(i) for i in range(size)] + [f"[PAD{i}]" for i in range(size, rows)])
    w.add_array("tokenizer.ggml.token_type", [3] * 3 + [1] * (size - 4) + [4] + [5] * 5)
    merges = json.loads(tok.to_str())["model"]["merges"]
    w.add_array("tokenizer.ggml.merges", [m if isinstance(m, str) else " ".join(m) for m in merges])
    for key, value in dict(bos=1, eos=2, padding=0).items():
        w.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    w.add_string("tokenizer.chat_template", TEMPLATE)
    if pre != "llama-bpe":
        w.add_bool("tokenizer.ggml.add_bos_token", False)
    first = {}
    with torch.no_grad():
        for i, (k, p) in enumerate(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            x = (1 + 0.1 * noise if k.endswith("norm.weight") else 0.25 * noise if p.dim() > 1 else 0.1 * noise).numpy()
            kind = kinds[i % len(kinds)] if x.ndim > 1 else Q.F32
            raw = lambda x: gguf.quants.quantize(x, kind)
            p.copy_(torch.from_numpy(gguf.quants.dequantize(raw(x), kind).astype(numpy.float32).copy()))
            heads = 4 if "q_proj" in k else 2 if "k_proj" in k else 0
            w.add_tensor(gguf_name(k), raw(permuted(x, heads) if arch == "llama" and heads else x), raw_dtype=kind)
            first[k] = dict(shape=list(p.shape), first=p.reshape(-1)[:6].tolist(), last=p.reshape(-1)[-6:].tolist())
    finish(w)
    cases = []
    for length in (1, 9, 30):
        ids = torch.randint(3, size, (length,), generator=g).tolist()
        logits = model(torch.tensor([ids])).logits[0]
        cases.append(dict(ids=ids, logps=[round(x, 6) for x in torch.log_softmax(logits[:-1], -1).gather(-1, torch.tensor(ids[1:]).view(-1, 1)).view(-1).tolist()]))
    texts = [dict(text=t, ids=tok.encode(t, add_special_tokens=False).ids, added=tok.encode(t).ids) for t in TEXTS]
    expected["models"][name] = dict(params=first, cases=cases, texts=texts, vocab_size=rows, eps=1e-5)
json.dump(expected, open(os.path.join(out, "expected.json"), "w"))
