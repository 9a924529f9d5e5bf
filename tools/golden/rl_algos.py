"""Values and gradients of the objectives of togi-rl-algos, from the papers' equations in float64.

python rl_algos.py ../../crates/rl-algos/tests/golden/rl_algos.json [ppo_trainer.py of TRL 1.12, cross-checked]
A case: function, scalars, inputs (float32 numbers), weights, outputs, and the gradients of
sum(weight * output) over all outputs with respect to the inputs that are differentiated.
"""

import ast, json, random, sys, torch

rng, cases = random.Random(7), []
log = lambda x: torch.nn.functional.logsigmoid(x)
numbers = lambda n, lo, hi: [round(rng.uniform(lo, hi), 4) for _ in range(n)]


def case(fn, inputs, f, grads=(), mask=None, shape=None, **scalars):
    """`inputs`: name -> flat numbers; `f` maps float64 tensors to name -> tensor."""
    x = {k: torch.tensor(v, dtype=torch.float32).double().reshape(shape or [-1]) for k, v in inputs.items()}
    for k in grads:
        x[k].requires_grad_()
    m = None if mask is None else torch.tensor(mask)
    out = f(**x) if m is None else f(**x, mask=m)
    w = {k: numbers(v.numel(), -1, 1) for k, v in out.items()}
    if grads:
        sum((torch.tensor(w[k]).float().double() * v.reshape(-1)).sum() for k, v in out.items()).backward()
    flat = lambda t: [float(f"{v:.10g}") for v in t.detach().reshape(-1).tolist()]
    cases.append(dict(fn=fn, shape=list(shape or [len(next(iter(inputs.values())))]), scalars=scalars, inputs=inputs,
                      mask=mask, weights=w, outputs={k: flat(v) for k, v in out.items()},
                      gradients={k: flat(x[k].grad) for k in grads}))


# Preference pairs, [batch].
POLICY = ("chosen", "rejected")


def pairs(n, extreme):
    p = {k: numbers(n, -20, -1) for k in ("chosen", "rejected", "ref_chosen", "ref_rejected")}
    if extreme:  # log-ratios of +-40, and a pair that equals its reference
        p["chosen"][:3], p["ref_chosen"][:3] = [-0.5, -40.5, -3.0], [-40.5, -0.5, -3.0]
        p["rejected"][:3], p["ref_rejected"][:3] = [-40.0, -0.25, -7.0], [0.0, -40.25, -7.0]
    return p


s = lambda x: (x["chosen"] - x["ref_chosen"], x["rejected"] - x["ref_rejected"])
h = lambda x: s(x)[0] - s(x)[1]
for n, extreme, beta in [(1, False, 0.1), (4, True, 0.1), (7, True, 1.5)]:
    p = pairs(n, extreme)
    for e in (0.0, 0.1, 0.5):
        case("dpo_sigmoid", p, lambda **x: dict(loss=-(1 - e) * log(beta * h(x)) - e * log(-beta * h(x))), POLICY, beta=beta, e=e)
    for e in (0.0, 0.1, 0.4):
        robust = lambda **x: dict(loss=(-(1 - e) * log(beta * h(x)) + e * log(-beta * h(x))) / (1 - 2 * e))
        case("dpo_robust", p, robust, POLICY, beta=beta, e=e)
    case("dpo_hinge", p, lambda **x: dict(loss=torch.relu(1 - beta * h(x))), POLICY, beta=beta)
    case("implicit_rewards", p, lambda **x: dict(chosen=beta * s(x)[0], rejected=beta * s(x)[1]), beta=beta)
    case("ipo_summed", p, lambda **x: dict(loss=(h(x) - 1 / (2 * beta)) ** 2), POLICY, tau=beta)
    counts = {k: [rng.randint(1, 9) for _ in range(n)] for k in ("n_chosen", "n_rejected")}
    averaged = lambda **x: dict(loss=(s(x)[0] / x["n_chosen"] - s(x)[1] / x["n_rejected"] - 1 / (2 * beta)) ** 2)
    case("ipo_averaged", p | counts, averaged, POLICY, tau=beta)
    slic = lambda chosen, rejected, target: dict(loss=torch.relu(beta * 10 - chosen + rejected) - 0.3 * target)
    scored = {k: p[k] for k in POLICY}
    case("slic_hf", scored | dict(target=numbers(n, -20, 0)), slic, (*POLICY, "target"), delta=beta * 10, lam=0.3)
    for margin, c in [(False, 0.0), (False, 0.01), (True, 0.0), (True, 0.1)]:
        bt = lambda chosen, rejected, margin=0: dict(loss=-log(chosen - rejected - margin) + c * (chosen + rejected) ** 2)
        case("bradley_terry", scored | (dict(margin=numbers(n, 0, 3)) if margin else {}), bt, POLICY, c=c)

# More objectives on the same kind of pairs, drawn after all the above so that those stay as they are.
def more_pair_objectives():
    sig = torch.sigmoid
    for n, extreme, beta in [(1, False, 0.1), (4, True, 0.1), (7, True, 1.5)]:
        p = pairs(n, extreme)
        counts = {k: [rng.randint(1, 9) for _ in range(n)] for k in ("n_chosen", "n_rejected")}
        scored = {k: p[k] for k in POLICY}
        avg = lambda x: (x["chosen"] / x["n_chosen"], x["rejected"] / x["n_rejected"])
        for e in (0.001, 0.1, 0.5):
            def exo(**x):
                q = torch.stack([log(beta * h(x)), log(-beta * h(x))])
                target = torch.tensor([[1 - e], [e]]).double()
                return dict(loss=(q.exp() * (q - target.log())).sum(0))
            case("exo_pair", p, exo, POLICY, beta=beta, e=e)
        case("nca_pair", p, lambda **x: dict(loss=-log(beta * s(x)[0]) - 0.5 * log(-beta * s(x)[0]) - 0.5 * log(-beta * s(x)[1])),
             POLICY, beta=beta)
        for delta in (0.0, 0.7, -2.0):
            bco = lambda **x: dict(loss=-log(beta * s(x)[0] - delta) - log(-(beta * s(x)[1] - delta)))
            case("bco_pair", p, bco, POLICY, beta=beta, delta=delta)
        case("sppo_hard", p, lambda **x: dict(loss=(s(x)[0] - 0.5 / beta) ** 2 + (s(x)[1] + 0.5 / beta) ** 2), POLICY, beta=beta)
        for e in (0.0, 0.2):
            smooth = lambda d: dict(loss=-(1 - e) * log(beta * d) - e * log(-beta * d))
            paired = lambda **x: smooth((x["chosen"] - x["rejected"]).sort().values - (x["ref_chosen"] - x["ref_rejected"]).sort().values)
            case("aot", p, paired, POLICY, beta=beta, e=e)
            case("aot_unpaired", p, lambda **x: smooth(s(x)[0].sort().values - s(x)[1].sort().values), POLICY, beta=beta, e=e)
        case("apo_zero", p, lambda **x: dict(loss=1 - sig(beta * s(x)[0]) + sig(beta * s(x)[1])), POLICY, beta=beta)
        case("apo_down", p, lambda **x: dict(loss=sig(beta * s(x)[0]) + 1 - sig(beta * h(x))), POLICY, beta=beta)
        # exp(-beta h) of the extreme pairs is no float32: only the moderate ones here.
        mild = {k: v[3:] if n > 4 else v for k, v in p.items()} if n != 4 else pairs(4, False)
        for tau in (0.05, 1.0):
            def discopop(**x):
                m = sig(beta * h(x) / tau)
                return dict(loss=(1 - m) * -log(beta * h(x)) + m * torch.exp(-beta * h(x)))
            case("discopop", mild, discopop, POLICY, beta=beta, tau=tau)
        normed = lambda **x: dict(loss=-log(beta * (s(x)[0] / x["n_chosen"] - s(x)[1] / x["n_rejected"])))
        case("sigmoid_norm", p | counts, normed, POLICY, beta=beta)
        for gamma in (0.0, 0.5):
            simpo = lambda **x: dict(loss=-log(beta * (avg(x)[0] - avg(x)[1]) - gamma))
            case("simpo", scored | counts, simpo, POLICY, beta=beta, gamma=gamma)
        for e, alpha in [(0.0, 1.0), (0.1, 0.3)]:
            def cpo(chosen, rejected, n_chosen):
                d = beta * (chosen - rejected)
                return dict(loss=-(1 - e) * log(d) - e * log(-d) - alpha * chosen / n_chosen)
            case("cpo", scored | dict(n_chosen=counts["n_chosen"]), cpo, POLICY, beta=beta, e=e, alpha=alpha)

        def orpo(**x):
            odds = [p - torch.log(-torch.expm1(p)) for p in avg(x)]
            return dict(loss=-avg(x)[0] - beta * log(odds[0] - odds[1]))
        case("orpo", scored | counts, orpo, POLICY, lam=beta)
        near = dict(chosen=numbers(n, -0.002, -0.0005), rejected=numbers(n, -0.02, -0.001))
        case("orpo", near | dict(n_chosen=[1] * n, n_rejected=[1] * n), orpo, POLICY, lam=beta)
        f = dict(reverse_kl=lambda t: t.log(), forward_kl=lambda t: 1 - 1 / t, jensen_shannon=lambda t: (2 * t / (t + 1)).log())
        for alpha in (0.3, 2.0):
            f[f"alpha {alpha}"] = lambda t, a=alpha: (t ** (a - 1) - 1) / (a - 1)
        small = {k: numbers(n, -4, -1) for k in p}
        for name, g in f.items():
            fdpo = lambda **x: dict(loss=-log(beta * (g(s(x)[0].exp()) - g(s(x)[1].exp()))))
            kind, *alpha = name.split()
            case("f_dpo_" + kind, small, fdpo, POLICY, beta=beta, alpha=float((alpha or [0])[0]))
        up = [rng.random() < 0.5 for _ in range(n)]
        for z in (0.0, 1.3):
            def kto(policy, reference):
                r = policy - reference
                d = torch.tensor(up)
                return dict(loss=torch.where(d, 1.2 * (1 - sig(beta * (r - z))), 0.7 * (1 - sig(beta * (z - r)))))
            case("kto", dict(policy=p["chosen"], reference=p["ref_chosen"]), kto, ("policy",), beta=beta, z=z, up=1.2, down=0.7)
            cases[-1]["desirable"] = up


# Tokens, [batch, time], true where a token counts.
K = dict(k1=lambda l: l, k2=lambda l: l * l / 2, k3=lambda l: torch.expm1(-l) + l)
trl = {}
if len(sys.argv) > 2:
    tree = ast.parse(open(sys.argv[2]).read())
    tree.body = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name in ("masked_mean", "masked_var", "masked_whiten")]
    exec(compile(tree, "trl", "exec"), dict(torch=torch), trl)
    for f in trl.values():
        f.__globals__.update(trl)


def gae(rewards, values, mask, gamma, lam):
    """The definition: A_t = sum over k of (gamma lambda)^k delta_{t+k}."""
    A = torch.zeros_like(rewards)
    for b, n in enumerate(mask.sum(1).tolist()):
        V = torch.cat([values[b, :n], torch.zeros(1).double()])
        delta = rewards[b, :n] + gamma * V[1:] - V[:-1]
        for t in range(n):
            A[b, t] = sum((gamma * lam) ** k * delta[t + k] for k in range(n - t))
    return dict(advantages=A, returns=(A + values) * mask)


def whiten(x, mask, keep):
    v = x[mask]
    var = v.var() if len(v) > 1 else torch.zeros(()).double()
    out = (x - v.mean()) / (var + 1e-8).sqrt() + (v.mean() if keep else 0)
    if trl and len(v) > 1:
        assert torch.allclose(out[mask], trl["masked_whiten"](x, mask, shift_mean=not keep)[mask], atol=1e-9)
    return dict(out=out * mask)


def rewards(scores, kl, mask, coef):
    R = -coef * kl * mask
    for b, n in enumerate(mask.sum(1).tolist()):
        R[b, n - 1] += scores[b, 0]
    return dict(rewards=R)


def policy_loss(logps, old, advantages, mask, low, high):
    ratio = (logps - old).exp()
    plain, bound = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    return dict(loss=torch.maximum(plain, bound) * mask, ratio=torch.where(mask, ratio, 1.0).detach(),
                approx_kl=((logps - old) ** 2 / 2 * mask).detach(), clipped=((bound > plain) & mask).double())


for lens, T in [([1], 1), ([5], 5), ([3], 6), ([1, 4, 6, 2], 6)]:
    B, N = len(lens), len(lens) * T
    shape, mask = [B, T], [[t < n for t in range(T)] for n in lens]
    token = lambda lo, hi: numbers(N, lo, hi)
    near = dict(logps=token(-6, 0))
    near["old"] = [round(v + rng.uniform(-0.6, 0.6), 4) for v in near["logps"]]
    far = dict(logps=token(-9, 0))
    far["old"] = [round(v + rng.choice([-40, -3, 0, 0.01, 3, 40]), 4) for v in far["logps"]]
    for p in (near, far):
        for k, f in K.items():
            case("kl_" + k, p, lambda logps, old: dict(kl=f(logps - old)), ("logps",), shape=shape)
        for low, high in [(0.2, 0.2), (0.2, 0.28)]:
            case("policy_loss", p | dict(advantages=token(-2, 2)), lambda **x: policy_loss(**x, low=low, high=high),
                 ("logps",), mask, shape, low=low, high=high)
    v = dict(values=token(-2, 2), returns=token(-3, 3))
    v["old"] = [round(x + rng.uniform(-0.5, 0.5), 4) for x in v["values"]]
    value = lambda values, returns, old, mask: dict(loss=0.5 * mask * torch.maximum(
        (values - returns) ** 2, (torch.clamp(values, old - 0.2, old + 0.2) - returns) ** 2))
    case("value_loss", v, value, ("values",), mask, shape, eps=0.2)
    for gamma, lam in [(1.0, 0.95), (1.0, 1.0), (0.9, 0.5), (0.99, 0.0), (0.0, 1.0)]:
        case("gae", dict(rewards=token(-2, 2), values=token(-2, 2)), lambda **x: gae(**x, gamma=gamma, lam=lam), (), mask,
             shape, gamma=gamma, lam=lam)
    for scale, keep in [(1, 0), (1, 1), (40, 0), (40, 1)]:
        case("whiten", dict(x=token(-scale, 2 * scale)), lambda **x: whiten(**x, keep=keep), (), mask, shape, keep=keep)
    scores = [v for v in numbers(B, -3, 3) for _ in range(T)]
    case("token_rewards", dict(scores=scores, kl=token(-1, 40)), lambda **x: rewards(**x, coef=0.05), (), mask, shape, coef=0.05)
    y, w = dict(logps=token(-40, 0)), dict(weights=token(0, 2))
    case("nll", y, lambda logps, mask: dict(loss=-logps * mask), ("logps",), mask, shape)
    case("weighted_nll", y | w, lambda logps, weights, mask: dict(loss=-logps * weights * mask), ("logps",), mask, shape)
    d = 11.0
    case("mean_token", y, lambda logps, mask: dict(out=(logps * mask).sum() / d), ("logps",), mask, shape, denominator=d)
    case("mean_sequence", y, lambda logps, mask: dict(out=((logps * mask).sum(1) / mask.sum(1)).sum() / d), ("logps",),
         mask, shape, denominator=d)

# Adaptive KL (lm-human-preferences): the weight after each of a series of batches.
kls, coefs, coef = [0.0, 3.0, 5.5, 6.0, 6.5, 40.0, -1.0, 7.1], [], 0.15
for kl in kls:
    coef *= 1 + min(max(kl / 6 - 1, -0.2), 0.2) * 256 / 10000
    coefs.append(coef)
case("kl_controller", dict(kl=kls), lambda kl: dict(coef=torch.tensor(coefs).double()), coef=0.15, target=6.0, horizon=10000.0, n=256)
cases[-1]["outputs"]["coef"] = coefs

def online_objectives():
    for n, size in [(2, 2), (6, 3), (8, 4), (12, 2)]:
        scores = numbers(n, -3, 3)
        if n == 8: scores[:4] = [1.25] * 4  # a group without a difference
        grouped = lambda r: r.reshape(-1, size)
        centred = lambda r: grouped(r) - grouped(r).mean(1, keepdim=True)
        case("group_group", dict(scores=scores), lambda scores: dict(out=(centred(scores) / (grouped(scores).std(1, keepdim=True) + 1e-4)).reshape(-1)), size=size)
        case("group_batch", dict(scores=scores), lambda scores: dict(out=(centred(scores) / (scores.std() + 1e-4)).reshape(-1)), size=size)
        case("group_none", dict(scores=scores), lambda scores: dict(out=centred(scores).reshape(-1)), size=size)
        others = lambda r: torch.stack([r[i] - torch.cat([r[i // size * size:i], r[i + 1:(i // size + 1) * size]]).mean() for i in range(len(r))])
        case("rloo", dict(scores=scores), lambda scores: dict(out=others(scores)), size=size)
    for lens, T in [([1], 1), ([3], 6), ([1, 4, 6, 2], 6)]:
        B, N = len(lens), len(lens) * T
        shape, mask = [B, T], [[t < n for t in range(T)] for n in lens]
        p = dict(logps=numbers(N, -6, 0))
        p["old"] = [round(v + rng.uniform(-0.6, 0.6), 4) for v in p["logps"]]
        token = p | dict(advantages=numbers(N, -2, 2))
        each = p | dict(advantages=[v for v in numbers(B, -2, 2) for _ in range(T)])

        def returns(rewards, mask, gamma):
            G = torch.zeros_like(rewards)
            for b, n in enumerate(mask.sum(1).tolist()):
                for t in range(n): G[b, t] = sum(gamma ** (k - t) * rewards[b, k] for k in range(t, n))
            return dict(returns=G)
        for gamma in (1.0, 0.5, 0.0):
            case("returns", dict(rewards=numbers(N, -2, 2)), lambda **x: returns(**x, gamma=gamma), (), mask, shape, gamma=gamma)
        reinforce = lambda logps, advantages, mask, old: dict(loss=-advantages * logps * mask)
        case("reinforce", token, reinforce, ("logps",), mask, shape)
        for eps in (0.2, 4.0):
            cispo = lambda logps, old, advantages, mask: dict(
                loss=-torch.clamp((logps - old).exp(), max=1 + eps).detach() * advantages * logps * mask)
            case("cispo", token, cispo, ("logps",), mask, shape, eps=eps)
        for low, high in [(3e-4, 4e-4), (0.2, 0.28)]:
            def gspo(logps, old, advantages, mask):
                s = (((logps - old) * mask).sum(1) / mask.sum(1)).exp()
                A = advantages[:, 0]
                plain, bound = -A * s, -A * s.clamp(1 - low, 1 + high)
                return dict(loss=torch.maximum(plain, bound), ratio=s.detach(), clipped=(bound > plain).double())
            case("gspo", each, gspo, ("logps",), mask, shape, low=low, high=high)


def rewards_and_weights():
    """Reward modelling, and what weighs or reads log-probabilities in another way."""
    one_of = lambda n, things: [rng.choice(things) for _ in range(n)]
    for n in (1, 6):
        p = pairs(n, n > 3)
        scored = {k: p[k] for k in POLICY}
        counts = {k: [rng.randint(1, 9) for _ in range(n)] for k in ("n_chosen", "n_rejected")}
        for e in (0.1, 0.5):
            bt = lambda chosen, rejected: dict(loss=-(1 - e) * log(chosen - rejected) - e * log(rejected - chosen) + 0.01 * (chosen + rejected) ** 2)
            case("bradley_terry_smoothed", scored, bt, POLICY, c=0.01, e=e)
        for theta in (1.2, 4.0):
            outcome = one_of(n, ["first", "second", "tie"])

            def ties(chosen, rejected):  # The three probabilities as Rao and Kupper write them.
                x = torch.stack([chosen, rejected])
                a, b = (x - x.max(0).values).exp()  # only their ratio counts
                wins, loses = a / (a + theta * b), b / (theta * a + b)
                p = dict(first=wins, second=loses, tie=(theta**2 - 1) * a * b / ((a + theta * b) * (theta * a + b)))
                return dict(loss=torch.stack([-p[o][i].log() for i, o in enumerate(outcome)]))
            case("ties", {k: numbers(n, -6, 6) for k in POLICY}, ties, POLICY, theta=theta)
            cases[-1]["outcome"] = outcome
        case("regression", dict(chosen=numbers(n, -3, 3), target=numbers(n, 0, 4)), lambda chosen, target: dict(loss=(chosen - target) ** 2),
             ("chosen",))
        case("mean_nll", dict(chosen=p["chosen"], n_chosen=counts["n_chosen"]), lambda chosen, n_chosen: dict(loss=-chosen / n_chosen), ("chosen",))
        near = {k: [round(v + rng.uniform(-3, 3), 4) for v in p[k]] for k in POLICY}
        w = scored | {f"ref_{k}": v for k, v in near.items()} | counts
        weight = lambda **x: dict(weights=torch.exp(s(x)[0] / x["n_chosen"] + s(x)[1] / x["n_rejected"]).clamp(max=1))
        if n == 1: case("wpo", w, weight)
        else: case("wpo", {k: v[3:] for k, v in w.items()}, weight)  # without the pairs of extreme ratios
        likes = numbers(n, 0, 1)
        y = dict(policy=p["chosen"], reference=p["ref_chosen"])
        nash = lambda policy, reference: dict(loss=-(torch.tensor(likes).double() - 0.5) * policy + 0.1 * (policy - reference).detach() * policy)
        case("nash_md", y, nash, ("policy",), tau=0.1)
        cases[-1]["likes"] = likes
        for alpha in (0.0, 0.3):
            xpo = lambda target, **x: dict(loss=-log(0.4 * h(x)) + alpha * target)
            case("xpo", p | dict(target=numbers(n, -20, 0)), xpo, (*POLICY, "target"), beta=0.4, alpha=alpha)
    for n, k in [(1, 2), (3, 4), (2, 7)]:
        scores, shape = dict(scores=numbers(n * k, -4, 4)), [n, k]

        def luce(scores):  # Products of choices among those that are left.
            e = scores.exp()
            return dict(loss=-torch.stack([e[:, i] / e[:, i:].sum(1) for i in range(k)]).log().sum(0))
        case("plackett_luce", scores, luce, ("scores",), shape=shape)
        both = [(i, j) for i in range(k) for j in range(i + 1, k)]
        case("all_pairs", scores, lambda scores: dict(loss=torch.stack([-log(scores[:, i] - scores[:, j]) for i, j in both]).mean(0)),
             ("scores",), shape=shape)
    for lens, T in [([1], 1), ([3], 6), ([1, 4, 6, 2], 6)]:
        B, N = len(lens), len(lens) * T
        shape, mask = [B, T], [[t < n for t in range(T)] for n in lens]
        p = dict(logps=numbers(N, -6, 0))
        p["old"] = [round(v + rng.uniform(-0.6, 0.6), 4) for v in p["logps"]]
        right = one_of(N, [True, False])
        steps = lambda logps, mask: dict(loss=torch.where(mask, torch.nn.functional.binary_cross_entropy_with_logits(
            logps, torch.tensor(right).double().reshape(shape), reduction="none"), 0.0))
        case("steps", dict(logps=numbers(N, -9, 9)), steps, ("logps",), mask, shape)
        cases[-1]["right"] = right
        public = [rng.randint(1, n) for n in lens]
        for alpha in (0.0, 0.4, 1.0):
            def desensitised(logps, mask):
                whole = [logps[i, :public[i]].sum() + alpha * logps[i, public[i]:n].sum() for i, n in enumerate(mask.sum(1).tolist())]
                return dict(out=torch.stack(whole))
            case("ld_dpo", dict(logps=p["logps"]), desensitised, ("logps",), mask, shape, alpha=alpha)
            cases[-1]["public"] = public
        case("k3_times_ratio", p | dict(reference=numbers(N, -6, 0)), lambda logps, old, reference: dict(
            kl=K["k3"](logps - reference) * (logps - old).exp()), ("logps",), shape=shape)


def soft_labels():
    """Labels that are probabilities, by PyTorch's own cross-entropy."""
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    for n in (1, 6):
        p = pairs(n, n > 3)
        likes = dict(probability=[0.3] if n == 1 else [0.0, 1.0, 0.5, 0.9, 0.2, 0.65])
        dpo = lambda probability, **x: dict(loss=bce(0.3 * h(x), probability, reduction="none"))
        case("dpo_soft", p | likes, dpo, POLICY, beta=0.3)
        soft = lambda chosen, rejected, probability: dict(
            loss=bce(chosen - rejected, probability, reduction="none") + 0.01 * (chosen + rejected) ** 2)
        case("bradley_terry_soft", {k: p[k] for k in POLICY} | likes, soft, POLICY, c=0.01)


more_pair_objectives()
online_objectives()
rewards_and_weights()
soft_labels()
json.dump(cases, open(sys.argv[1], "w"), separators=(",", ":"))
print(len(cases), "cases")
