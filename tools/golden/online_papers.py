"""Steps of online methods that TRL does not have (any more), from the papers' equations in plain PyTorch, on the completions and
rewards of online.json.

Run with the packages of requirements.txt, after online_trajectories.py:
python online_papers.py ../../crates/policy/tests/fixtures/llama ../../crates/train/tests/golden
float32 model, float64 losses, AdamW, constant learning rate, norm clipped at 1.
"""

import json, os, random, sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoModelForCausalLM

fixture, out = sys.argv[1:]
given = json.load(open(os.path.join(out, "online.json")))
GROUP, logsig = given["group"], torch.nn.functional.logsigmoid
HALF = GROUP // 2
random.seed(3)
greedy = [[round(random.uniform(-1, 2), 3) for _ in g["prompts"]] for g in given["generations"]]


def token_logps(model, generation):
    """One float64 vector a completion."""
    rows = []
    for i, completion in enumerate(generation["completions"]):
        prompt = generation["prompts"][i // GROUP]
        logps = model(torch.tensor([prompt + completion])).logits[0].double().log_softmax(-1)
        at = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
        rows.append(logps[at, torch.tensor(completion)])
    return rows


def run(prepare, objective, passes):
    """`prepare(scores, old, ref, number)` -> whatever `objective(now, old, ref, prepared)` wants; the loss comes out."""
    load = lambda: AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32)
    model, reference, steps = load(), load().eval(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=given["learning_rate"], weight_decay=0.0)
    for number, generation in enumerate(given["generations"] * (2 // passes)):
        with torch.no_grad():
            old, ref = token_logps(model, generation), token_logps(reference, generation)
        prepared = prepare(torch.tensor(generation["rewards"]).double(), old, ref, number)
        for _ in range(passes):
            loss = objective(token_logps(model, generation), old, ref, prepared)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps.append(dict(loss=loss.item(), grad_norm=norm.item()))
    return steps


kl = lambda old, ref: torch.stack([(o - r).sum() for o, r in zip(old, ref)])
sums = lambda rows: torch.stack([r.sum() for r in rows])
groups = lambda n: [range(i, i + GROUP) for i in range(0, n, GROUP)]
whole = lambda now, old, ref, A: -(A * sums(now)).mean()  # REINFORCE on whole completions

history = []


def running(scores, old, ref, number):
    if number == 0: history.clear()
    R = scores - 0.05 * kl(old, ref)
    baseline = torch.cat(history).mean() if history else R.mean()
    history.append(R)
    return R - baseline


def remax(scores, old, ref, number):
    base = torch.tensor(greedy[number % len(greedy)]).double().repeat_interleave(GROUP)
    return scores - 0.05 * kl(old, ref) - base


def plus_plus(baseline):
    def prepare(scores, old, ref, number):
        if baseline: scores = scores - scores.reshape(-1, GROUP).mean(1).repeat_interleave(GROUP)
        returns = []
        for score, o, r in zip(scores, old, ref):
            rewards = -0.01 * (o - r)
            rewards[-1] += score
            returns.append(torch.stack([rewards[t:].sum() for t in range(len(rewards))]))
        flat = torch.cat(returns)
        return [(G - flat.mean()) / (flat.var() + 1e-8).sqrt() for G in returns]
    return prepare


def clipped(now, old, ref, A):
    ratio = (torch.cat(now) - torch.cat(old)).exp()
    A = torch.cat(A)
    return -torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A).mean()


def raft(now, old, ref, scores):
    best = [max(g, key=lambda i: scores[i]) for g in groups(len(now))]
    return -torch.cat([now[i] for i in best]).mean()


def online_dpo(now, old, ref, scores):
    s, losses = sums(now) - sums(ref), []
    for g in groups(len(now)):
        best, worst = max(g, key=lambda i: scores[i]), min(g, key=lambda i: scores[i])
        losses.append(-logsig(0.1 * (s[best] - s[worst])))
    return torch.stack(losses).mean()


def xpo(now, old, ref, scores):
    s, losses = sums(now) - sums(ref), []
    for g in groups(len(now)):
        for i, j in zip(g[:HALF], g[HALF:]):
            better, worse = (i, j) if scores[i] > scores[j] else (j, i)
            losses.append(-logsig(0.1 * (s[better] - s[worse])) + 0.01 * now[j].sum())
    return torch.stack(losses).mean()


def nash(now, old, ref, scores):
    losses = []
    for g in groups(len(now)):
        for i, j in zip(g[:HALF], g[HALF:]):
            p, y, r = torch.sigmoid(scores[i] - scores[j]), now[i].sum(), ref[i].sum()
            losses.append(-(p - 0.5) * y + 0.1 * (y - r).detach() * y)
    return torch.stack(losses).mean()


scores_only = lambda scores, *_: scores
result = dict(
    greedy=greedy,
    reinforce=run(running, whole, 1), remax=run(remax, whole, 1),
    reinforce_plus_plus=run(plus_plus(False), clipped, 2), reinforce_plus_plus_baseline=run(plus_plus(True), clipped, 2),
    raft=run(scores_only, raft, 2), online_dpo=run(scores_only, online_dpo, 2), xpo=run(scores_only, xpo, 2),
    nash_md=run(scores_only, nash, 1),
)
json.dump(result, open(os.path.join(out, "online_papers.json"), "w"))
for name, steps in result.items():
    if name != "greedy": print(name, len(steps), steps[0], steps[-1])
