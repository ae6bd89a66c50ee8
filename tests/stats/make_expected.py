"""Writes expected.json, which tests/stats.rs holds the statistics against: other people's implementations where
there are some, and plain Python over exact fractions and 40 decimal digits otherwise.

Made with Python 3.11, scipy 1.17.1, statsmodels 0.15.0, lifelines 0.30.3, mpmath 1.3.0 and numpy 2.4.6:

    pip install scipy statsmodels lifelines mpmath
    python tests/stats/make_expected.py
"""

import itertools
import json
import pathlib
import random
import statistics
import warnings
from fractions import Fraction
from math import comb

import mpmath
import numpy
import scipy.stats
import statsmodels.api
from lifelines import KaplanMeierFitter
from mpmath import mpf
from statsmodels.stats.contingency_tables import cochrans_q, mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

warnings.simplefilter("ignore")
mpmath.mp.dps = 40
rng = random.Random(20)
expected = {}

tails = [0.49, 0.3, 0.1, 0.05, 0.025, 0.01, 0.003125, 1e-6, 1e-12]
freedoms = [1, 2, 3, 4, 7, 10, 30, 99, 199, 200, 1000, 100000]
expected["normal_quantile"] = [[tail, scipy.stats.norm.isf(tail)] for tail in tails]
expected["student_quantile"] = [
    [tail, freedom, scipy.stats.t.isf(tail, freedom)] for tail in tails for freedom in freedoms
]


def student_tail(t, freedom):
    """By its density, integrated with 40 digits: scipy loses some far out."""
    freedom = mpf(freedom)
    x = freedom / (freedom + mpf(t) ** 2)
    return float(mpmath.betainc(freedom / 2, mpf(1) / 2, 0, x, regularized=True) / 2)


expected["student_tail"] = [
    [t, freedom, student_tail(t, freedom)]
    for t in [0.0, 1e-5, 0.3, 1.0, 1.7, 1.8, 2.5, 6.0, 30.0]
    for freedom in [1, 2, 5, 11, 60, 198, 1001]
]
expected["chi_square_tail"] = [
    [x, freedom, float(mpmath.gammainc(mpf(freedom) / 2, mpf(x) / 2, regularized=True))]
    for freedom in [1, 2, 3, 4, 11, 12, 50, 399]
    for x in [1e-4, 0.5, 2.0, 7.5, 20.0, 45.0, 400.0]
]
expected["one_minus_root"] = [
    [x, n, float(1 - mpf(x) ** (mpf(1) / n))] for x in [0.05, 0.01] for n in [1, 3, 200, 1000, 123456789]
]


def wilson(hits, n, level):
    return [float(end) for end in proportion_confint(hits, n, alpha=1 - level, method="wilson")]


expected["wilson"] = [
    [hits, n, level, *wilson(hits, n, level)]
    for hits, n in [(0, 1), (1, 1), (0, 20), (1, 29), (15, 148), (81, 263), (500, 500), (3, 100000), (499999, 10**6)]
    for level in [0.8, 0.95, 0.99]
]


def newcombe(both, lost, gained, neither, tail, effect=1, z=None):
    """Method 10, in the words of the paper and with 40 digits; with an effect, the intervals of as many items less."""
    n = both + lost + gained + neither
    z = mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * mpf(tail)) if z is None else mpf(z)

    def ends(hits):
        p, of = mpf(hits) / n, mpf(n) / effect
        middle, reach = p + z**2 / (2 * of), z * mpmath.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
        return p, (middle - reach) / (1 + z**2 / of), (middle + reach) / (1 + z**2 / of)

    p1, l1, u1 = ends(both + gained)
    p2, l2, u2 = ends(both + lost)
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    top = mpf(both * neither - lost * gained)
    if top > 0:
        top = max(top - mpf(n) / 2, 0)
    phi = top / mpmath.sqrt(margins) if margins else mpf(0)
    theta = p1 - p2
    down, up = (p1 - l1, u2 - p2), (u1 - p1, p2 - l2)
    reach = [mpmath.sqrt(a**2 - 2 * phi * a * b + b**2) for a, b in (down, up)]
    return [float(theta - reach[0]), float(theta + reach[1])]


def paired(both, lost, gained, neither):
    n, flips, few = both + lost + gained + neither, lost + gained, min(lost, gained)
    up_to = lambda most: Fraction(sum(comb(flips, j) for j in range(most + 1)), 2**flips)
    p_value = min(Fraction(1), 2 * up_to(few))
    if 0 < flips < 400:
        table = [[both, lost], [gained, neither]]
        assert abs(mcnemar(table, exact=True).pvalue - float(p_value)) <= 1e-11
        assert abs(scipy.stats.binomtest(lost, flips).pvalue - float(p_value)) <= 1e-11
    return {
        "counts": [both, lost, gained, neither],
        "difference": (gained - lost) / n,
        "p_value": float(p_value),
        "newcombe": newcombe(both, lost, gained, neither, 0.025),
        "bounds": newcombe(both, lost, gained, neither, 0.05),
    }


tables = [(1, 1, 7, 12), (180, 5, 0, 15), (170, 10, 2, 18), (200, 0, 0, 0), (150, 0, 0, 50), (0, 0, 0, 7)]
tables += [(0, 9, 8, 0), (1, 0, 0, 0), (0, 1, 0, 0), (3, 15, 5, 2), (900, 40, 40, 20), (5, 13, 3, 0)]
tables += [(12345, 700, 650, 4321), (2, 0, 1, 0)]
expected["paired"] = [paired(*table) for table in tables]

expected["holm"] = []
for p_values in [[0.01, 0.04, 0.03, 0.005], [0.2], [0.02] * 4, [0.001, 0.9, 0.013, 0.013, 0.6, 0.02, 0.012]]:
    rejected, adjusted, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    expected["holm"].append({"p": p_values, "adjusted": list(adjusted), "rejected": [bool(r) for r in rejected]})


def clustered(values, ids):
    fit = statsmodels.api.OLS(values, numpy.ones(len(values))).fit()
    fit = fit.get_robustcov_results(cov_type="cluster", groups=numpy.array(ids), use_correction=True, use_t=True)
    sums, sizes, mean = {}, {}, Fraction(sum(values), len(values))
    for value, name in zip(values, ids):
        sums[name] = sums.get(name, 0) + value
        sizes[name] = sizes.get(name, 0) + 1
    squares = sum((sums[name] - sizes[name] * mean) ** 2 for name in sums)
    variance = Fraction(len(sums), len(sums) - 1) * squares / len(values) ** 2
    error = float(mpmath.sqrt(mpf(variance.numerator) / variance.denominator))
    assert abs(error / fit.bse[0] - 1) < 1e-10
    plain = statistics.variance([Fraction(value) for value in values]) / len(values)
    unclustered = statsmodels.api.OLS(values, numpy.ones(len(values))).fit()
    assert abs(float(plain) / unclustered.bse[0] ** 2 - 1) < 1e-10
    nonzero = [total for total in sums.values() if total]
    ways = itertools.product([-1, 1], repeat=len(nonzero))
    far = abs(sum(nonzero))
    as_far = sum(abs(sum(s * total for s, total in zip(signs, nonzero))) >= far for signs in ways)
    return {
        "values": values,
        "ids": ids,
        "mean": float(mean),
        "standard_error": error,
        "design_effect": float(variance / plain) if plain else None,
        "as_far": as_far,
        "of": 2 ** len(nonzero),
    }


expected["clustered"] = []
for count, size in [(2, 1), (5, 4), (12, 3), (9, 8)]:
    ids = [name for name in range(count) for _ in range(rng.randint(1, size))] + [0]
    shift = [rng.choice([-1, 0, 0, 1]) for _ in range(count)]
    values = [max(-1, min(1, shift[name] + rng.choice([-1, 0, 0, 1]))) for name in ids]
    values[0] = 1
    order = rng.sample(range(len(ids)), len(ids))
    expected["clustered"].append(clustered([values[at] for at in order], [ids[at] for at in order]))

expected["cells"] = []
for cells, items in [(2, 10), (3, 40), (5, 60), (12, 30)]:
    easy = [rng.random() for _ in range(items)]
    right = [[int(rng.random() < share) for share in easy] for _ in range(cells)]
    lengths = [[rng.randint(1, 300) for _ in range(items)] for _ in range(cells)]
    test = cochrans_q(numpy.array(right).T)
    pairs = list(itertools.combinations(range(cells), 2))
    accuracies = [Fraction(sum(cell), items) for cell in right]
    of_items = [Fraction(sum(cell[item] for cell in right), cells) for item in range(items)]
    deviations = [statistics.stdev([Fraction(cell[item]) for cell in lengths]) for item in range(items)]
    expected["cells"].append({
        "right": ["".join(map(str, cell)) for cell in right],
        "lengths": lengths,
        "deviation": float(statistics.stdev(accuracies)),
        "range": float(max(accuracies) - min(accuracies)),
        "q": float(test.statistic),
        "p_value": float(test.pvalue),
        "unstable": sum(0 < share < 1 for share in of_items),
        "alike": sum(right[a][item] == right[b][item] for a, b in pairs for item in range(items)),
        "pairs": len(pairs) * items,
        "deviation_of_lengths": float(numpy.mean(deviations)),
    })

expected["survival"] = []
freireich = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+".split()
observed = [[(int(time.rstrip("+")), not time.endswith("+")) for time in freireich]]
observed.append([(rng.randint(1, 30), rng.random() < 0.6) for _ in range(50)])
observed.append([(rng.randint(1, 6), True) for _ in range(12)])
observed.append([(rng.randint(1, 5000), rng.random() < 0.5) for _ in range(120)])
for times in observed:
    durations, events = [time for time, _ in times], [event for _, event in times]
    fit = KaplanMeierFitter().fit(durations, events)
    table = fit.event_table[fit.event_table["observed"] > 0]
    curve = fit.survival_function_.iloc[:, 0]
    ends = fit.confidence_interval_survival_function_
    steps = []
    for time, row in table.iterrows():
        interval = [float(value) for value in ends.loc[time]] if curve.loc[time] > 0 else None
        steps.append([int(time), int(row["at_risk"]), int(row["observed"]), float(curve.loc[time]), interval])
    median = fit.median_survival_time_
    expected["survival"].append({
        "times": times,
        "steps": steps,
        "median": None if median == float("inf") else int(median),
    })



def four(outputs, right):
    """Of each item what Std@Acc, Div_Index, Avg_Std@Output_Length and Avg_Std@top1_prob are made from."""
    tokens = [[token for token, _ in output] for output in outputs]
    shared = next(
        (at for at, column in enumerate(zip(*tokens)) if len(set(column)) > 1), min(len(output) for output in tokens)
    )
    parts = any(len(output) != shared for output in tokens)
    probabilities = [[output[at][1] / 256 for output in outputs] for at in range(shared)]
    return (
        right,
        shared if parts else float("nan"),
        statistics.stdev(len(output) for output in tokens),
        statistics.mean(statistics.stdev(column) for column in probabilities) if shared else float("nan"),
    )


expected["redrawn"] = []
for cells, items in [(2, 200), (4, 300)]:
    outputs, right = [], []
    for _ in range(items):
        length, chance = rng.randint(0, 9), rng.random()
        base = [rng.randint(0, 5) for _ in range(length)]
        of_item = []
        for _ in range(cells):
            cut = rng.randint(0, length) if rng.random() < 0.2 else length
            tail = [9] * rng.randint(0, 3) if cut < length else []
            of_item.append([[token, rng.randint(100, 255)] for token in base[:cut] + tail])
        outputs.append(of_item)
        right.append([int(rng.random() < (0.9 if chance < 0.8 else 0.5)) for _ in range(cells)])
    table = [four(*item) for item in zip(outputs, right)]
    hits = numpy.array([row[0] for row in table])
    others = [numpy.array([row[at] for row in table]) for at in (1, 2, 3)]
    statistics_of = [
        lambda drawn: numpy.std(hits[drawn].mean(axis=0), ddof=1),
        *(lambda drawn, values=values: numpy.nanmean(values[drawn]) for values in others),
    ]
    intervals = []
    for statistic in statistics_of:
        drawn = scipy.stats.bootstrap(
            (numpy.arange(items),), statistic, n_resamples=20_000, vectorized=False, method="percentile", random_state=1
        )
        intervals.append([float(end) for end in drawn.confidence_interval])
    expected["redrawn"].append({
        "outputs": outputs,
        "right": right,
        "values": [float(statistic(numpy.arange(items))) for statistic in statistics_of],
        "intervals": intervals,
    })


def in_clusters(reference, cell, ids):
    """Wilson's and Newcombe's intervals, with cluster-robust variances of statsmodels for design effects."""
    groups = numpy.array(ids)

    def effect(values):
        fit = statsmodels.api.OLS(values, numpy.ones(len(values))).fit()
        robust = fit.get_robustcov_results(cov_type="cluster", groups=groups, use_correction=True, use_t=True)
        # Where all values are the same nothing tells how far those of a cluster hang together: it counts as one item.
        if len(set(values)) == 1:
            return sum(ids.count(name) ** 2 for name in set(ids)) / len(ids)
        return max(1.0, float(robust.bse[0] ** 2 / fit.bse[0] ** 2))

    # As many clusters of one size as scatter as much, by Kish.
    alike = len(ids) ** 2 // sum(ids.count(name) ** 2 for name in set(ids))
    t = float(scipy.stats.t.isf(0.025, alike - 1))
    level = 2 * scipy.stats.norm.sf(t)
    of = effect(cell)
    wilson = proportion_confint(sum(cell) / of, len(cell) / of, alpha=level, method="wilson")
    pairs = list(zip(reference, cell))
    counts = [pairs.count(pair) for pair in [(1, 1), (1, 0), (0, 1), (0, 0)]]
    gains = [after - before for before, after in pairs]
    return {
        "reference": reference,
        "cell": cell,
        "ids": ids,
        "wilson": [float(end) for end in wilson],
        "newcombe": newcombe(*counts, None, effect(gains), t),
    }


expected["in_clusters"] = []
for count, size in [(4, 3), (20, 5), (60, 7)]:
    ids, reference, cell = [], [], []
    for name in range(count):
        hard, turned = rng.random(), rng.random() < 0.3
        for _ in range(rng.randint(1, size)):
            ids.append(name)
            reference.append(int(rng.random() < hard))
            cell.append(int(rng.random() < 0.2) if turned else reference[-1])
    expected["in_clusters"].append(in_clusters(reference, cell, ids))

expected["binomial_tail"] = [
    [hits, of, share, float(scipy.stats.binom.sf(hits - 1, of, share))]
    for hits, of in [(0, 4), (1, 1), (3, 10), (10, 10), (40, 200)]
    for share in [0.01, 0.2, 0.5, 0.97]
]
# Gains over losses, by the exact interval of the share of gains.
expected["odds"] = []
for lost, gained in [(5, 9), (0, 3), (4, 0), (1, 1), (60, 20)]:
    lower, upper = scipy.stats.binomtest(gained, lost + gained).proportion_ci(0.95, method="exact")
    expected["odds"].append([lost, gained, float(lower / (1 - lower)), float(upper / (1 - upper)) if lost else None])

text = ",\n".join(
    f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"
    for name, rows in expected.items()
)
pathlib.Path(__file__).with_name("expected.json").write_text("{\n" + text + "\n}\n")
