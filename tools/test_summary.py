#!/usr/bin/env python3
"""Sums up the JSON reports that GoogleTest programs left in a folder.

Prints what was skipped and why, the slowest tests, and a last line
"N passed, N failed, N skipped". Exits 1 when a test failed or none ran.
"""
import json
import pathlib
import sys


def seconds(text: str) -> float:
    return float(text.rstrip("s"))


def main(folder: str) -> int:
    passed, failed, skipped, times = [], [], [], []
    for report in sorted(pathlib.Path(folder).glob("*.json")):
        suites = json.loads(report.read_text())["testsuites"]
        for suite in suites:
            for test in suite["testsuite"]:
                name = f"{report.stem}: {suite['name']}.{test['name']}"
                times.append((seconds(test["time"]), name))
                if test["result"] == "SKIPPED":
                    reason = " ".join(m["message"] for m in test.get("skipped", []))
                    skipped.append((name, reason.strip().splitlines()[-1:] or [""]))
                elif "failures" in test:
                    failed.append(name)
                elif test["status"] == "RUN":
                    passed.append(name)
    for name, reason in skipped:
        print(f"skipped  {name}: {reason[0]}")
    for duration, name in sorted(times, reverse=True)[:8]:
        print(f"{duration:7.1f} s  {name}")
    for name in failed:
        print(f"FAILED   {name}")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
