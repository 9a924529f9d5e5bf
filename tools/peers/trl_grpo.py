"""TRL's GRPO steps with transformers' generation on given prompts, for `cargo xtask bench peers`.

trl_grpo.py MODEL PROMPTS.jsonl COMPLETIONS GROUP NEW MICRO_BATCH STEPS BETA LEARNING_RATE DTYPE THREADS
COMPLETIONS of NEW tokens a step, GROUP of each prompt, one update; the end token is suppressed. The reward is the share of even token
ids. Prints one JSON object as trl_dpo.py does, and what each step drew.
"""

import json, sys

from steps import Clock, shared
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

path, data, completions, group, new, micro, steps, beta, rate, dtype, threads = sys.argv[1:12]
completions, group, new, micro = int(completions), int(group), int(new), int(micro)
torch.set_num_threads(int(threads))
rows = [json.loads(line) for line in open(data)][:completions // group * int(steps)]
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))


def even_tokens(completion_ids, **_):
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


config = GRPOConfig(**shared(steps, rate), per_device_train_batch_size=micro, gradient_accumulation_steps=completions // micro,
                    num_generations=group, max_completion_length=new, generation_kwargs={"min_new_tokens": new},
                    temperature=1.0, beta=float(beta))
trainer = GRPOTrainer(model=model, reward_funcs=even_tokens, args=config, train_dataset=Dataset.from_list(rows),
                      processing_class=AutoTokenizer.from_pretrained(path))
clock = Clock(completions)
trainer.add_callback(clock)
trainer.train()
clock.report()
