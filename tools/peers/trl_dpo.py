"""TRL's DPO steps on given pairs, for `cargo xtask bench peers`.

trl_dpo.py MODEL PAIRS.jsonl BATCH STEPS LEARNING_RATE DTYPE THREADS ADAPTER
Pairs (`prompt`, `chosen`, `rejected`) are taken in file order. With ADAPTER, a PEFT folder, an adapter of its kind is trained from
its weights; with an empty text, the model. Prints one JSON object: seconds, loss and gradient norm of each step, and the peak of
the memory.
"""

import json, sys

from steps import Clock, in_order, shared
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

path, data, batch, steps, rate, dtype, threads, adapter = sys.argv[1:9]
torch.set_num_threads(int(threads))
rows = [json.loads(line) for line in open(data)]
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
peft = None
if adapter:
    from peft import PeftConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    peft = PeftConfig.from_pretrained(adapter)
    peft.inference_mode = False
config = DPOConfig(**shared(steps, rate), per_device_train_batch_size=int(batch), max_length=None, beta=0.1)
trainer = in_order(DPOTrainer)(model=model, args=config, train_dataset=Dataset.from_list(rows), peft_config=peft,
                               processing_class=AutoTokenizer.from_pretrained(path))
if adapter:
    found = set_peft_model_state_dict(trainer.model, load_file(f"{adapter}/adapter_model.safetensors"))
    assert not found.unexpected_keys, found.unexpected_keys
clock = Clock()
trainer.add_callback(clock)
trainer.train()
clock.report()
