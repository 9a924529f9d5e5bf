"""Twenty training steps of TRL on a tiny model: loss and gradient norm of each step.

Run with the packages of requirements.txt:
python trajectories.py ../../crates/policy/tests/fixtures/llama ../../crates/train/tests/golden
Rows are taken in file order, four a step; float32, AdamW, constant learning rate, norm clipped at 1.
"""

import json, os, random, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from datasets import Dataset
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

fixture, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
STEPS, BATCH = 20, 4
random.seed(0)
words = lambda low, high: " ".join(f"w{random.randint(3, 95)}" for _ in range(random.randint(low, high)))
rows = [dict(prompt=words(2, 9), chosen=" " + words(1, 8), rejected=" " + words(1, 8)) for _ in range(STEPS * BATCH)]
tokenizer = AutoTokenizer.from_pretrained(fixture)
shared = dict(per_device_train_batch_size=BATCH, max_steps=STEPS, logging_steps=1, report_to=[], use_cpu=True, bf16=False,
              gradient_checkpointing=False, save_strategy="no", disable_tqdm=True, learning_rate=2e-3,
              lr_scheduler_type="constant", max_grad_norm=1.0, seed=0, output_dir=tempfile.mkdtemp())


class Record(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.steps.append({k: float(logs[k]) for k in ("loss", "grad_norm", "rewards/margins", "margin") if k in logs})


def run(Trainer, model, args, data, **more):
    class InOrder(Trainer):
        def _get_train_sampler(self, *_, **__):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        # The logged loss is rounded to four digits: keep it whole.
        def log(self, logs, *rest, **named):
            super().log(logs, *rest, **named)

        def compute_loss(self, *arguments, **named):
            loss = super().compute_loss(*arguments, **named)
            exact.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    exact, record = [], Record()
    trainer = InOrder(model=model, args=args, train_dataset=Dataset.from_list(data), processing_class=tokenizer, **more)
    trainer.add_callback(record)
    trainer.train()
    return [dict(step, loss=loss) for step, loss in zip(record.steps, exact, strict=True)]


causal = lambda: AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32)
result = dict(rows=rows, learning_rate=2e-3, batch=BATCH)
SMOOTHED = dict(exo_pair=0.01, robust=0.1, aot=0.1)
for loss in ("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
             "apo_zero", "apo_down", "discopop", "sigmoid_norm"):
    config = DPOConfig(**shared, beta=0.1, loss_type=[loss], label_smoothing=SMOOTHED.get(loss, 0.0))
    result[f"dpo_{loss}"] = run(DPOTrainer, causal(), config, rows)
for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
    config = DPOConfig(**shared, beta=0.1, f_divergence_type=divergence, f_alpha_divergence_coef=0.5)
    result[f"dpo_{divergence}"] = run(DPOTrainer, causal(), config, rows)
for name, more in dict(weighting=dict(use_weighting=True), ld=dict(ld_alpha=0.5),
                       sum=dict(loss_type=["sigmoid", "bco_pair"], loss_weights=[0.8, 0.2])).items():
    result[f"dpo_{name}"] = run(DPOTrainer, causal(), DPOConfig(**shared, beta=0.1, **more), rows)
config = DPOConfig(**shared, beta=0.1, sync_ref_model=True, ref_model_mixup_alpha=0.6, ref_model_sync_steps=3)
result["dpo_synced"] = run(DPOTrainer, causal(), config, rows, ref_model=causal())
labelled = [dict(prompt=r["prompt"], completion=r["chosen" if i % 3 else "rejected"], label=i % 3 > 0) for i, r in enumerate(rows)]
config = KTOConfig(**shared, beta=0.1, undesirable_weight=1.5, train_sampling_strategy="sequential")
result["kto"] = run(KTOTrainer, causal(), config, labelled)
result["sft"] = run(SFTTrainer, causal(), SFTConfig(**shared), [dict(prompt=r["prompt"], completion=r["chosen"]) for r in rows])
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(fixture, num_labels=1, dtype=torch.float32)
with torch.no_grad():
    model.score.weight.copy_(torch.randn(1, 32) / 33**0.5)
result["score"] = model.score.weight[0].tolist()
result["reward"] = run(RewardTrainer, model, RewardConfig(**shared), rows)
json.dump(result, open(os.path.join(out, "trajectories.json"), "w"))
for name, steps in result.items():
    if name.startswith("dpo_") or name in ("kto", "sft", "reward"): print(name, steps[0], steps[-1])
