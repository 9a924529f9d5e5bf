"""What the programs that train share: a clock for each step, an order, and the line that they end with."""

import json, os, time

os.environ["HF_HUB_OFFLINE"] = "1"
import place
import torch
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Notes the time of each step, its loss and its gradient norm; of steps that draw, what they drew."""

    def __init__(self, completions=0):
        self.steps, self.drawn, self.completions = [], [], completions

    def on_step_begin(self, *_, **__):
        place.wait()
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        place.wait()
        self.steps.append({"seconds": time.perf_counter() - self.started})

    def on_log(self, args, state, control, logs=None, **__):
        if "loss" not in logs:
            return
        self.steps[-1].update(loss=float(logs["loss"]), grad_norm=float(logs["grad_norm"]))
        if self.completions:
            tokens = round(float(logs["completions/mean_length"]) * self.completions)
            self.drawn.append({"tokens": tokens, "reward": float(logs["reward"]), "entropy": float(logs["entropy"])})

    def report(self):
        """Prints one JSON object: the steps, and the peak of the memory."""
        print(json.dumps({"steps": self.steps, "drawn": self.drawn, "peak_bytes": place.peak_bytes()}))


def in_order(trainer):
    """The trainer, with samples in the order of the file."""

    class InOrder(trainer):
        def _get_train_sampler(self, *_, **__):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    return InOrder


def shared(steps, rate):
    """Arguments of every trainer here."""
    return dict(output_dir="/tmp/togi-peer", max_steps=int(steps), logging_steps=1, report_to=[], use_cpu=place.device == "cpu",
                bf16=False, gradient_checkpointing=False, save_strategy="no", disable_tqdm=True, learning_rate=float(rate),
                lr_scheduler_type="constant", max_grad_norm=1.0, seed=0)
