"""TRL's DPO steps on given pairs, for `cargo xtask bench peers`.

trl_dpo.py MODEL PAIRS.jsonl BATCH STEPS LEARNING_RATE DTYPE LORA_RANK THREADS
Pairs (`prompt`, `chosen`, `rejected`) are taken in file order. Prints one JSON object: seconds, loss and gradient norm of each
step, and the peak of the resident memory.
"""

import json, os, resource, sys, time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

path, data, batch, steps, rate, dtype, rank, threads = sys.argv[1:9]
torch.set_num_threads(int(threads))
rows = [json.loads(line) for line in open(data)]
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
peft = None
if int(rank):
    from peft import LoraConfig
    peft = LoraConfig(r=int(rank), lora_alpha=2 * int(rank), target_modules="all-linear", lora_dropout=0.0)
config = DPOConfig(output_dir="/tmp/togi-peer", per_device_train_batch_size=int(batch), max_steps=int(steps), logging_steps=1,
                   report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no", disable_tqdm=True,
                   learning_rate=float(rate), lr_scheduler_type="constant", max_length=None, beta=0.1, max_grad_norm=1.0, seed=0)


class InOrder(DPOTrainer):
    def _get_train_sampler(self, *_, **__):
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Clock(TrainerCallback):
    steps = []

    def on_step_begin(self, *_, **__):
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.steps.append({"seconds": time.perf_counter() - self.started})

    def on_log(self, args, state, control, logs=None, **__):
        if "loss" in logs:
            self.steps[-1].update(loss=float(logs["loss"]), grad_norm=float(logs["grad_norm"]))


clock = Clock()
trainer = InOrder(model=model, args=config, train_dataset=Dataset.from_list(rows), peft_config=peft,
                  processing_class=AutoTokenizer.from_pretrained(path))
trainer.add_callback(clock)
trainer.train()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"steps": clock.steps, "peak_bytes": peak}))
