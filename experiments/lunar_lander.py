"""LunarLander by PPO's tuned preset: trained in EnvPool's, evaluated greedily there and in Gymnasium's own.

.venv/bin/python experiments/lunar_lander.py --num-seeds 4
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

import purejaxrl_ext as prx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=("envpool", "gymnasium"), default="envpool")
    parser.add_argument("--num-seeds", type=int, default=4)
    parser.add_argument("--total-steps", type=int, default=1_500_000)
    parser.add_argument("--episodes", type=int, default=128)
    args = parser.parse_args()
    made = {
        suite: prx.make("ppo", f"{suite}:LunarLander-v3", preset="tuned", metrics_every=0)
        for suite in dict.fromkeys((args.suite, "gymnasium"))
    }
    began = time.time()
    trained = made[args.suite]
    ds = prx.sweep(trained, num_seeds=args.num_seeds, total_steps=args.total_steps, progress=False, keep_states=True)
    seconds = time.time() - began
    print(f"{args.num_seeds} seeds of {args.total_steps:,} steps in {seconds:.0f} s", flush=True)
    for suite, algorithm in made.items():
        returns = [
            prx.evaluate(algorithm, prx.load_state(ds, seed=s), jax.random.key(100 + s), args.episodes)
            for s in range(args.num_seeds)
        ]
        means = np.mean(returns, axis=1)
        print(f"{suite}: mean greedy return {means.mean():.1f}; by seed {np.round(means, 1).tolist()}", flush=True)


if __name__ == "__main__":
    main()
