#!/usr/bin/env python3
"""Compares the speed of two builds of nibble on one machine.

    bench/compare.py BASE HEAD [--rounds N] [-- ARGS of `nibble bench`]

BASE and HEAD are nibble programs. Each round runs both, one right after the other and in turn first, so
that a machine that drifts drifts for both. For every rate that both report it prints the medians, the
median of the rounds' ratios HEAD / BASE and the band that holds four fifths of the ratios; a change is
called one only when that band does not hold 1 and the median is 1 % away from it. Example:

    bench/compare.py /tmp/old/nibble build/nibble --rounds 9 -- --synthetic tinyllama-1.1b --format w4a16_g128

Exits 1 when a rate has become slower, so that a script can watch it.
"""
import argparse
import json
import statistics
import subprocess
import sys

LEAST_CHANGE = 0.01
RATES = ("tokens_per_second", "gflops")


def rates_of(program, arguments):
    """{name: rate} of one run, flat: rows of `bench linear` are named after their shape."""
    command = [program, "bench", *arguments, "--json", "--quiet"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = result.get("rows", [result])
    rates = {}
    for row in rows:
        keys = [str(row[key]) for key in ("format", "shape", "m", "impl") if key in row and "rows" in result]
        for key, value in row.items():
            if key.endswith(RATES):
                rates[" ".join(keys + [key])] = float(value)
    return rates


def measure(base, head, arguments, rounds):
    """One (base, head) pair of rates a round and name."""
    pairs = {}
    for index in range(rounds):
        programs = (base, head) if index % 2 == 0 else (head, base)
        first, second = (rates_of(program, arguments) for program in programs)
        old, new = (first, second) if index % 2 == 0 else (second, first)
        for name in old.keys() & new.keys():
            pairs.setdefault(name, []).append((old[name], new[name]))
    return pairs


def noise_band(ratios):
    """From the first to the ninth decile."""
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    deciles = statistics.quantiles(ratios, n=10, method="inclusive")
    return deciles[0], deciles[-1]


def verdict_of(ratios):
    low, high = noise_band(ratios)
    if abs(statistics.median(ratios) - 1) < LEAST_CHANGE or low <= 1 <= high:
        return "no change"
    return "faster" if low > 1 else "slower"


def report(pairs):
    """Prints a row a rate; True when one has become slower."""
    slower = False
    print(f"{'rate':40} {'base':>10} {'head':>10} {'ratio':>7}  band")
    for name, values in sorted(pairs.items()):
        ratios = [new / old for old, new in values if old > 0]
        if not ratios:
            continue
        low, high = noise_band(ratios)
        verdict = verdict_of(ratios)
        slower |= verdict == "slower"
        base, head = (statistics.median(column) for column in zip(*values))
        print(f"{name:40} {base:10.1f} {head:10.1f} {statistics.median(ratios):7.3f}  "
              f"{low:.3f} ... {high:.3f}  {verdict}")
    return slower


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("head")
    parser.add_argument("--rounds", type=int, default=7)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, arguments = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1:]
    if args.rounds < 1:
        parser.error("--rounds: at least one")
    try:
        pairs = measure(args.base, args.head, arguments, args.rounds)
    except subprocess.CalledProcessError as error:
        print(f"compare: {' '.join(error.cmd)}: {error.stderr.strip()}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 1 if report(pairs) else 0


if __name__ == "__main__":
    sys.exit(main())
