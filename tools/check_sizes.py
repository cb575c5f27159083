#!/usr/bin/env python3
"""Keeps files small: warns above the soft limit, fails above the hard one.

Limits count lines: sources 400 / 800, tests 600 / 1200. Prints the total of the tree.
"""
import pathlib
import sys

LIMITS = {"src": (400, 800), "bench": (400, 800), "tools": (400, 800), "tests": (600, 1200)}
SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".py", ".sh"}


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    failed = False
    totals = []
    for folder, (soft, hard) in LIMITS.items():
        total = 0
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SUFFIXES:
                continue
            lines = len(path.read_text(encoding="utf-8").splitlines())
            total += lines
            if lines > soft:
                failed = failed or lines > hard
                word = "too long" if lines > hard else "long"
                print(f"sizes: {word}: {path.relative_to(root)} has {lines} lines ({soft} / {hard})")
        totals.append(f"{folder} {total}")
    print("sizes: " + ("FAILED" if failed else "ok") + f" ({', '.join(totals)} lines)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
