"""Twenty steps of TRL's GRPO and RLOO trainers on a tiny model, with completions and rewards that are given, not drawn.

Run with the packages of requirements.txt:
python online_trajectories.py ../../crates/policy/tests/fixtures/llama ../../crates/train/tests/golden
Two prompts with four completions each a generation; each generation is used for two steps, so that ratios leave 1. float32,
AdamW, constant learning rate, norm clipped at 1.
"""

import json, os, random, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

fixture, out = sys.argv[1:]
STEPS, PROMPTS, GROUP, LONGEST = 20, 2, 4, 8
random.seed(1)
tokenizer = AutoTokenizer.from_pretrained(fixture)
generations = []
for _ in range(STEPS // 2):
    prompts = [" ".join(f"w{random.randint(3, 95)}" for _ in range(random.randint(2, 9))) for _ in range(PROMPTS)]
    completions = []
    for _ in range(PROMPTS * GROUP):
        ids = [random.randint(3, 95) for _ in range(random.randint(1, LONGEST))]
        completions.append(ids[:-1] + [2] if random.random() < 0.7 else ids)
    rewards = [round(random.uniform(-1, 2), 3) for _ in completions]
    generations.append(dict(prompts=[tokenizer(p).input_ids for p in prompts], texts=prompts, completions=completions, rewards=rewards))
data = Dataset.from_list([dict(prompt=p) for g in generations for p in g["texts"]])
shared = dict(per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, num_iterations=2, max_steps=STEPS, logging_steps=1,
              report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no", disable_tqdm=True,
              learning_rate=2e-3, lr_scheduler_type="constant", max_grad_norm=1.0, seed=0, output_dir=tempfile.mkdtemp(),
              shuffle_dataset=False, max_completion_length=LONGEST, temperature=1.0)


class Record(TrainerCallback):
    def __init__(self):
        self.norms = []

    def on_log(self, args, state, control, logs=None, **_):
        if "grad_norm" in logs: self.norms.append(float(logs["grad_norm"]))


def run(Trainer, config):
    exact, record, calls = [], Record(), []

    def reward(completion_ids, **_):
        given = generations[len(calls) - 1]
        assert [list(c) for c in completion_ids] == given["completions"]
        return given["rewards"]

    class Given(Trainer):
        def _generate_single_turn(self, prompt_ids, *_):
            given = generations[len(calls)]
            calls.append(1)
            assert [list(p) for p in prompt_ids] == [p for p in given["prompts"] for _ in range(GROUP)], prompt_ids
            ids = [list(c) for c in given["completions"]]
            return (ids, None) if Trainer is GRPOTrainer else ids

        def compute_loss(self, *arguments, **named):
            loss = super().compute_loss(*arguments, **named)
            exact.append(loss.item())
            return loss

    model = AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32)
    trainer = Given(model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.add_callback(record)
    trainer.train()
    assert len(calls) == len(generations), len(calls)
    return [dict(loss=loss, grad_norm=norm) for loss, norm in zip(exact, record.norms, strict=True)]


result = dict(generations=generations, learning_rate=2e-3, group=GROUP, longest=LONGEST)
for name, more in dict(
    grpo=dict(loss_type="grpo", beta=0.04), dapo=dict(loss_type="dapo", beta=0.04, epsilon_high=0.28, use_bias_correction_kl=False),
    dr_grpo=dict(loss_type="dr_grpo", scale_rewards="none", beta=0.0),
    batch=dict(loss_type="dapo", scale_rewards="batch", beta=0.0),
    gspo=dict(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4, beta=0.0),
    cispo=dict(loss_type="cispo", epsilon_high=5.0, beta=0.0),
    bnpo=dict(loss_type="bnpo", beta=0.04, use_bias_correction_kl=False),
).items():
    result[name] = run(GRPOTrainer, GRPOConfig(**shared, **more))
result["rloo"] = run(RLOOTrainer, RLOOConfig(**shared, beta=0.05))
json.dump(result, open(os.path.join(out, "online.json"), "w"))
for name, steps in result.items():
    if isinstance(steps, list) and name != "generations": print(name, steps[0], steps[1], steps[-1])
