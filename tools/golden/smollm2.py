"""SmolLM2-135M-Instruct as transformers runs it, from the same GGUF file that `cargo xtask fetch` brings.

Run with the packages of requirements.txt: python smollm2.py MODEL.gguf ../../crates/policy/tests/golden/smollm2.json
For each of 20 conversations: the rendered prompt, its token ids, every 97th logit of its last position and of position 5
(float32), and 64 greedy tokens, the end token ignored. The weights are dequantised to float32; `rms_norm_eps` is the
1e-5 of the GGUF file's metadata.
"""

import json, os, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path, out = sys.argv[1:3]
folder, file = os.path.split(path)
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
assert abs(model.config.rms_norm_eps - 1e-5) < 1e-12, model.config.rms_norm_eps
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about autumn rain.",
    "Explain how a bicycle stays upright, in two sentences.",
    "List three uses of baking soda.",
    "Translate to French: The book is on the table.",
    "My name is Oluwaseun. Write me a short birthday greeting.",
    "def fibonacci(n):  # finish this function in Python",
    "Is 91 a prime number? Explain.",
    "Give me a recipe for pancakes.",
    "What does HTTP status 404 mean?",
    "Summarise: The cat sat on the mat. The dog barked. The cat ran away.",
    "Wie spät ist es in Tokio, wenn es in Berlin zwölf Uhr ist?",
    "日本の首都はどこですか。",
    "Write a polite e-mail asking for a day off.",
    "What are the primary colours?",
    "Why is the sky blue? Answer for a child.",
    "Continue the story: The lighthouse keeper found a bottle on the beach.",
    "Compare cats and dogs as pets.",
    "How many minutes are there in a week?",
    "Tell me a joke about programmers. 😀",
]
cases = []
for i, question in enumerate(QUESTIONS):
    messages = [{"role": "user", "content": question}]
    if i % 3 == 2: messages.insert(0, {"role": "system", "content": "You answer briefly."})
    if i % 4 == 3: messages += [{"role": "assistant", "content": "Gladly."}, {"role": "user", "content": "Go on, please."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    x = torch.tensor([ids])
    with torch.no_grad():
        logits = model(x).logits[0, [5, -1], ::97]
        greedy = model.generate(x, attention_mask=torch.ones_like(x), do_sample=False, max_new_tokens=64, min_new_tokens=64,
                                eos_token_id=None, pad_token_id=0)[0, len(ids):].tolist()
    cases.append(dict(messages=messages, text=text, ids=ids, logits=[[round(v, 4) for v in row] for row in logits.tolist()], greedy=greedy))
json.dump(dict(stride=97, cases=cases), open(out, "w"), ensure_ascii=False)
