"""TRL's SFT steps on the chosen answers of given pairs, for `cargo xtask bench peers`.

trl_sft.py MODEL PAIRS.jsonl BATCH STEPS LEARNING_RATE DTYPE THREADS
Rows (`prompt`, `chosen`) are taken in file order; the loss is on the answer. Prints one JSON object as trl_dpo.py does.
"""

import json, sys

from steps import Clock, in_order, shared
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

path, data, batch, steps, rate, dtype, threads = sys.argv[1:8]
torch.set_num_threads(int(threads))
rows = [json.loads(line) for line in open(data)]
rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
config = SFTConfig(**shared(steps, rate), per_device_train_batch_size=int(batch), max_length=None, completion_only_loss=True)
trainer = in_order(SFTTrainer)(model=model, args=config, train_dataset=Dataset.from_list(rows),
                               processing_class=AutoTokenizer.from_pretrained(path))
clock = Clock()
trainer.add_callback(clock)
trainer.train()
clock.report()
