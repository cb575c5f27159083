"""Prints the ranges that TF-Enhanced calibration (AIMET's SQNR) finds for histograms that hold no
sample: the anchors of tests/study/calibrator_anchors_test.cc.

    python sqnr_anchors.py

Made with numpy 2.4 and scipy 1.17, in float64, from the description of the method: candidates are
steps and zero points, and the cost of one is the squared error of the bins' centres, of those whose
code is outside the range gamma times.
"""

import numpy as np
from scipy import stats

BINS = 2048
GAMMA = 3


def cost(centers, counts, step, zero, steps):
    codes = np.round(centers / step - zero)
    outside = (codes < 0) | (codes > steps)
    error = (np.clip(codes, 0, steps) + zero) * step - centers
    return np.sum(counts * error**2 * np.where(outside, GAMMA, 1))


def least(candidates, centers, counts, steps):
    costs = [cost(centers, counts, step, zero, steps) for step, zero in candidates]
    return candidates[int(np.argmin(costs))]  # the first one


def symmetric(centers, counts, largest, bits):
    """Strict: 2^bits - 1 codes. The magnitude of the last code."""
    steps = 2**bits - 2
    widest = 2 * largest / steps
    candidates = [(widest * k / 100, -steps // 2) for k in range(1, 102)]
    return least(candidates, centers, counts, steps)[0] * steps / 2


def main():
    print("symmetric: 8 bits, 4 bits")
    for name, law, largest in [
        ("normal, 5", stats.norm(), 5),
        ("normal, 10", stats.norm(), 10),
        ("laplace", stats.laplace(), 16),
        ("t 5", stats.t(5), 40),
        ("t 3", stats.t(3), 150),
    ]:
        edges = np.arange(BINS + 1) * (largest / BINS)
        counts = np.round(1e7 * -2 * np.diff(law.sf(edges)))
        centers = (edges[1:] + edges[:-1]) / 2
        print(name, *(f"{symmetric(centers, counts, largest, bits):.5f}" for bits in (8, 4)))


if __name__ == "__main__":
    main()
