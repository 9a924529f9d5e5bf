"""Agreement, annotators' biases, diversity, paired tests and length-controlled win rates, from other libraries.

python eval_metrics.py ../../crates/eval/tests/golden/eval_metrics.json
With krippendorff 0.9.0, nltk 3.10.4, numpy 2.4.6, scikit-learn 1.9.1, scipy 1.17.1 and statsmodels 0.15.0.
Resampling is done with a second implementation of Togi's counter-based random numbers, so that intervals and
permutation p-values compare exactly, and once more against SciPy's exact permutations within chance.
"""

import gzip, itertools, json, math, random, sys, warnings
from collections import Counter, defaultdict

import krippendorff, numpy as np, scipy
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.util import ngrams
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

warnings.simplefilter("ignore")
rng, cases = random.Random(11), []
RESAMPLES, FLIPS = 2000, 10_000
M32, M64 = 2**32 - 1, 2**64 - 1


def case(metric, expected, **inputs):
    cases.append(dict(metric=metric, expected=expected, **inputs))


class CounterRng:
    """Philox4x32-10 (Salmon et al. 2011), keyed as togi_data::rng does."""

    def __init__(self, seed, stream):
        h = self.mix(len(stream) ^ 0x7467_6F69_0000_0000)
        for part in stream:
            h = self.mix(h ^ self.mix((part + 0x9E37_79B9_7F4A_7C15) & M64))
        key = self.mix(seed) ^ ((h << 32 | h >> 32) & M64)
        self.key, self.upper, self.block, self.words = (key & M32, key >> 32), (h & M32, h >> 32), 0, []

    @staticmethod
    def mix(x):
        x = (x ^ x >> 30) * 0xBF58_476D_1CE4_E5B9 & M64
        x = (x ^ x >> 27) * 0x94D0_49BB_1331_11EB & M64
        return x ^ x >> 31

    def u32(self):
        if not self.words:
            (k0, k1), c = self.key, (self.block & M32, self.block >> 32, *self.upper)
            for _ in range(10):
                a, b = 0xD251_1F53 * c[0], 0xCD9E_8D57 * c[2]
                c = (b >> 32 ^ c[1] ^ k0, b & M32, a >> 32 ^ c[3] ^ k1, a & M32)
                k0, k1 = k0 + 0x9E37_79B9 & M32, k1 + 0xBB67_AE85 & M32
            self.words, self.block = list(c), self.block + 1
        return self.words.pop(0)

    def u64(self):
        return self.u32() << 32 | self.u32()

    def below(self, n):
        while True:
            product = self.u64() * n
            if product & M64 >= (2**64 - n) % n:
                return product >> 64


def percentiles(n, seed, statistic):
    """Value, 2.5th and 97.5th percentile of the statistic of resampled indices, and how many had none."""
    values = []
    for i in range(RESAMPLES):
        draw = CounterRng(seed, [0x626F_6F74, i])
        values.append(statistic([draw.below(n) for _ in range(n)]))
    defined = sorted(v for v in values if v is not None)
    at = lambda share: defined[math.floor((len(defined) - 1) * share + 0.5)]
    return [statistic(list(range(n))), at(0.025), at(0.975), len(values) - len(defined)]


# Agreement. A table is annotators x items, NaN where a rating is missing.
def table(annotators, items, values, missing, agree):
    truth = [rng.choice(values) for _ in range(items)]
    t = np.array([[v if rng.random() < agree else rng.choice(values) for v in truth] for _ in range(annotators)], float)
    return np.where([[rng.random() < missing for _ in range(items)] for _ in range(annotators)], np.nan, t)


def triples(t):
    rows = [(i, a, float(t[a, i])) for a in range(len(t)) for i in range(t.shape[1]) if not np.isnan(t[a, i])]
    rng.shuffle(rows)
    return [list(x) for x in zip(*rows)]


def alpha(t, level):
    try:
        a = float(krippendorff.alpha(t, level_of_measurement=level))
        return a if math.isfinite(a) else None
    except ValueError:  # all values the same
        return None


def pair_kappas(t):
    kappas, undefined = [], 0
    for a, b in itertools.combinations(t, 2):
        both = ~np.isnan(a) & ~np.isnan(b)
        if both.any():
            codes = [np.searchsorted(np.unique(t[~np.isnan(t)]), x[both]) for x in (a, b)]
            k = float(cohen_kappa_score(*codes)) if len(set(codes[0]) | set(codes[1])) > 1 else math.nan
            kappas, undefined = (kappas + [k], undefined) if math.isfinite(k) else (kappas, undefined + 1)
    return kappas, undefined


def agreement():
    scale = [[0, 1], [1, 2, 3], [0, 1, 2, 3, 4], [-2.5, 0.25, 1.75, 8.0], [x / 4 for x in range(40)]]
    for k, (annotators, items, values, missing, agree) in enumerate([
            (2, 30, scale[0], 0.0, 0.7), (2, 12, scale[1], 0.1, 0.5), (3, 20, scale[2], 0.3, 0.6), (5, 15, scale[3], 0.5, 0.4),
            (4, 25, scale[0], 0.2, 0.95), (6, 10, scale[4], 0.4, 0.3), (3, 6, scale[0], 0.2, 0.9), (4, 40, scale[2], 0.6, 0.0)]):
        t = table(annotators, items, values, missing, agree)
        columns = triples(t)
        per_item = [[x for x in t[:, i] if not np.isnan(x)] for i in range(items)]
        shared = [r for r in per_item if len(r) > 1]
        equal = lambda r: float(np.mean([x == y for x, y in itertools.combinations(r, 2)]))
        kappas, undefined = pair_kappas(t)
        sizes = Counter(map(len, shared))
        m = max(sizes, key=lambda s: (sizes[s], s))
        domain = sorted({x for r in per_item for x in r})
        counts = [[r.count(v) for v in domain] for r in shared if len(r) == m]
        rated = sum(1 for r in per_item if r)
        case("agreement", dict(
            raw=float(np.mean([equal(r) for r in shared])), pairwise=[float(np.mean(kappas)), len(kappas), undefined],
            fleiss=[float(fleiss_kappa(np.array(counts))), m, len(counts), rated - len(counts)],
            alpha={level: alpha(t, level) for level in ("nominal", "ordinal", "interval")}), ratings=columns)
        if annotators == 2:
            case("cohen", kappas[0], ratings=columns)
        pairable = t[:, [len(r) > 1 for r in per_item]]
        for level in ("nominal", "ordinal", "interval"):
            of = lambda drawn: alpha(pairable[:, drawn], level)
            case("alpha_interval", percentiles(pairable.shape[1], k, of), ratings=columns, level=level, seed=k)
        t[0] = t[1] if k % 2 else t[0]
        kept = t[:2]
        if len(set(kept[~np.isnan(kept)])) > 1:
            case("cohen", pair_kappas(kept)[0][0], ratings=triples(kept))
        again = [(rng.randrange(4), rng.randrange(3), float(rng.choice(values))) for _ in range(30)]
        groups = defaultdict(list)
        for item, who, v in again:
            groups[who, item].append(v)
        shares = {g: equal(v) for g, v in groups.items() if len(v) > 1}
        by = {who: [s for (w, _), s in shares.items() if w == who] for who, _ in shares}
        case("self_consistency", dict(share=float(np.mean(list(shares.values()))), repeated=len(shares),
             by={str(w): [float(np.mean(s)), len(s)] for w, s in by.items()}), ratings=[list(x) for x in zip(*again)])


# Annotators. A choice: item, annotator, chosen (0, 1, or 2 for neither), shown first, longer (2 for neither).
def annotators():
    wilson = lambda hits: [float(np.mean(hits)), *map(float, proportion_confint(sum(hits), len(hits), method="wilson")), len(hits)] if hits else None
    for k in range(6):
        n = 5 + 4 * k
        rows = [(rng.randrange(n), rng.randrange(3 + k % 3), rng.choices([0, 1, 2], [5, 4, k % 3])[0], rng.randrange(2),
                 rng.choices([0, 1, 2], [4, 4, 1])[0]) for _ in range(4 * n)]
        votes = defaultdict(dict)
        for item, who, chosen, *_ in rows:
            votes[item].setdefault(who, chosen)
        out = []
        for who in sorted({r[1] for r in rows}):
            mine = [r for r in rows if r[1] == who]
            agrees = []
            for of_item in votes.values():
                others = Counter(v for w, v in of_item.items() if w != who).most_common()
                if who in of_item and others and (len(others) == 1 or others[0][1] > others[1][1]):
                    agrees.append(others[0][0] == of_item[who])
            out.append([who, len(mine), wilson([r[2] == r[3] for r in mine if r[2] < 2]),
                        wilson([r[2] == r[4] for r in mine if r[2] < 2 and r[4] < 2]), wilson(agrees)])
        disputed = []
        for item, of_item in votes.items():
            counts = [list(of_item.values()).count(v) for v in range(3)]
            entropy = float(scipy.stats.entropy(sorted(counts)))
            if max(counts) < sum(counts):
                disputed.append((-round(entropy, 12), -sum(counts), item, counts, entropy))
        case("annotators", dict(biases=out, disputed=[[d[2], d[3], d[4]] for d in sorted(disputed)]), choices=rows)


# Diversity.
def distinct(outs, n):
    grams = [g for t in outs for g in ngrams(t, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ead(outs, n, v):
    grams = [g for t in outs for g in ngrams(t, n)]
    return len(set(grams)) / (v * (1 - ((v - 1) / v) ** len(grams))) if grams else 0.0


def self_bleu(outs, n):
    smooth = SmoothingFunction().method1
    return float(np.mean([sentence_bleu(outs[:i] + outs[i + 1:], t, (1 / n,) * n, smooth) for i, t in enumerate(outs)]))


def scores(outs, texts, vectors, v):
    raw = " ".join(texts).encode()
    return dict(distinct=float(np.mean([distinct(outs, n) for n in range(1, 6)])),
                ead=float(np.mean([ead(outs, n, v) for n in range(1, 6)])), self_bleu=self_bleu(outs, 4),
                compression=len(raw) / len(gzip.compress(raw)), embedding=float(pdist(np.array(vectors), "cosine").mean()))


def diversity():
    for k in range(8):
        v, short = [5, 12, 40, 200][k % 4], k % 3 == 0
        answer = lambda: [rng.randrange(v) for _ in range(rng.randint(1 if short else 4, 6 if short else 30))]
        prompts = [[answer() for _ in range(rng.randint(1 if k == 5 else 2, 5))] for _ in range(3 + k)]
        for answers in prompts[::2]:  # near and exact repetitions
            answers[-1] = list(answers[0])
            answers[0] = answers[0] + [rng.randrange(v)]
        vectors = [[[rng.gauss(0.5, 1) for _ in range(4)] for _ in answers] for answers in prompts]
        words = lambda answers: [" ".join(f"w{t}" for t in tokens) for tokens in answers]
        each = [scores(a, words(a), e, v) for a, e in zip(prompts, vectors) if len(a) > 1]
        first = lambda all: [x[0] for x in all]
        case("diversity", dict(per_input={m: float(np.mean([s[m] for s in each])) for m in each[0]}, prompts=len(each),
             across=scores(first(prompts), words(first(prompts)), first(vectors), v)), tokens=prompts, vectors=vectors, vocabulary=v)
        flat = [t for a in prompts for t in a]
        for n in range(1, 5):
            case("ngrams", [distinct(flat, n), ead(flat, n, v), self_bleu(flat, n)], tokens=flat, n=n, vocabulary=v)


# Paired tests.
def paired():
    for k in range(8):
        n, shift = [3, 8, 12, 16, 25, 60, 200, 12][k], [0, 0.5, 1, 0.2, 0, 0.4, 0.1, 0][k]
        number = lambda mean: round(rng.gauss(mean, 1), 0 if k % 2 else 3)  # whole numbers give ties
        a, b = [number(shift) for _ in range(n)], [number(0) for _ in range(n)]
        wins, losses = sum(x > y for x, y in zip(a, b)), sum(x < y for x, y in zip(a, b))
        p = float(scipy.stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        case("sign", [wins, losses, n - wins - losses, p], a=a, b=b)
        d = [x - y for x, y in zip(a, b)]
        observed, slack, far = abs(sum(d)), 1e-12 * sum(map(abs, d)), 0
        for flip in range(FLIPS):
            draw, total = CounterRng(k, [0x666C_6970, flip]), 0.0
            for i in range(0, n, 64):
                bits = draw.u64()
                total += sum(-x if bits >> j & 1 else x for j, x in enumerate(d[i:i + 64]))
            far += abs(total) >= observed - slack
        exact = None
        if n <= 12:
            exact = float(scipy.stats.permutation_test((d,), lambda x, axis: np.mean(x, axis), permutation_type="samples",
                                                       vectorized=True, n_resamples=np.inf).pvalue)
        case("sign_flip", [(1 + far) / (1 + FLIPS), exact], a=a, b=b, seed=k)
        right = [[rng.random() < q for _ in range(n)] for q in (0.7, 0.5)]
        cross = [[sum(x == i and y == j for x, y in zip(*right)) for j in (True, False)] for i in (True, False)]
        case("mcnemar", float(mcnemar(cross, exact=True).pvalue), a=right[0], b=right[1])
        case("mean_interval", percentiles(n, k, lambda drawn: sum(d[i] for i in drawn) / n)[:3], a=a, b=b, seed=k)


# Length-controlled win rate.
def length_controlled():
    for k in range(8):
        n, ridge, hard = [12, 30, 60, 200, 25, 100, 40, 80][k], [0.1, 1, 0, 1e-3, 0.5, 0, 2, 0.01][k], k % 2 == 1
        by = [float(round(rng.gauss(40 * (k - 3), 120))) for _ in range(n)]
        difficulty = [round(rng.gauss(0, 1), 3) for _ in range(n)]
        x = np.column_stack([np.ones(n), np.tanh(np.array(by) / np.std(by, ddof=1))] + ([difficulty] if hard else []))
        true = 1 / (1 + np.exp(-x @ np.array([0.3, 0.8, 0.5][:x.shape[1]])))
        soft = lambda p: round(p, 4)
        y = [soft(p) if k % 4 == 3 else rng.choice([0.0, 0.5, 1.0]) if rng.random() < 0.2 else float(rng.random() < p) for p in map(float, true)]
        if ridge:
            fit = LogisticRegression(C=1 / ridge, fit_intercept=False, solver="newton-cholesky", tol=1e-13, max_iter=1000)
            weight = np.concatenate([y, 1 - np.array(y)])
            w = fit.fit(np.vstack([x, x]), [1] * n + [0] * n, sample_weight=weight).coef_[0]
        else:
            w = GLM(y, x, family=Binomial()).fit(tol=1e-13, maxiter=200).params
        level = x.copy()
        level[:, 1] = 0
        case("length_controlled", dict(win_rate=float((1 / (1 + np.exp(-level @ w))).mean()), raw=float(np.mean(y)),
             coefficients=[*map(float, w)]), wins=y, longer_by=by, difficulty=difficulty if hard else None, ridge=ridge)


agreement()
annotators()
diversity()
paired()
length_controlled()
json.dump(cases, open(sys.argv[1], "w"), separators=(",", ":"), allow_nan=False)
print(len(cases), "cases", dict(Counter(c["metric"] for c in cases)))
