"""transformers' `generate` on given prompts, for `cargo xtask bench peers`.

hf_generate.py MODEL PROMPTS.json NEW DTYPE THREADS REPEATS
PROMPTS.json is a list of equally long lists of token ids. Samples at temperature 1, the end token ignored. Prints one JSON object:
tokens per second of each repetition (after a warm-up), and the peak of the memory.
"""

import json, os, sys, time

os.environ["HF_HUB_OFFLINE"] = "1"
import place
import torch
from transformers import AutoModelForCausalLM

path, prompts, new, dtype, threads, repeats = sys.argv[1:7]
torch.set_num_threads(int(threads))
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval().to(place.device)
ids = torch.tensor(json.load(open(prompts)), device=place.device)
new = int(new)
how = dict(attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, pad_token_id=0, eos_token_id=None)
rates = []
with torch.no_grad():
    model.generate(ids, max_new_tokens=8, min_new_tokens=8, **how)
    for _ in range(int(repeats)):
        place.wait()
        started = time.perf_counter()
        out = model.generate(ids, max_new_tokens=new, min_new_tokens=new, **how)
        place.wait()
        seconds = time.perf_counter() - started
        assert out.shape == (len(ids), ids.shape[1] + new)
        rates.append(len(ids) * new / seconds)
print(json.dumps({"tokens_per_second": rates, "peak_bytes": place.peak_bytes()}))
