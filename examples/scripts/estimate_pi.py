#!/usr/bin/env -S colab-bridge run
"""Estimates pi with random points; shows that arguments, progress and the exit status work as with a local Python.

colab-bridge run examples/scripts/estimate_pi.py --points 2000000
"""

from __future__ import annotations

import argparse
import random
import sys
import time


def main() -> int:
    """Return 0 when the estimate is within the tolerance, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Estimate pi with random points.")
    parser.add_argument("--points", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tolerance", type=float, default=0.05)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    started = time.perf_counter()
    inside, steps = 0, 10
    for step in range(1, steps + 1):
        batch = options.points * step // steps - options.points * (step - 1) // steps
        inside += sum(rng.random() ** 2 + rng.random() ** 2 < 1.0 for _ in range(batch))
        print(f"{100 * step // steps:3d} %", file=sys.stderr, flush=True)
    estimate = 4 * inside / options.points
    print(f"pi is about {estimate:.4f} ({options.points:,} points, {time.perf_counter() - started:.1f} s)")
    return 0 if abs(estimate - 3.14159265) < options.tolerance else 1


if __name__ == "__main__":
    raise SystemExit(main())
