"""Games of chess against the uniformly random opponent, played by rules that need no training: is every move legal, who wins?

The agent is ``uniform`` (each legal move alike) or ``greedy`` (takes the most valuable piece). A game is played to its end; a win
counts 1, a draw ½. Before each move of either side the mask of legal moves is read, and a move outside it is counted.

    .venv/bin/python experiments/chess_games.py --agent uniform --games 10000
    .venv/bin/python experiments/chess_games.py --agent greedy --games 512
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.pgx import PgxEnv
from purejaxrl_ext.envs.pgx_opponents import greedy_chess, uniform

AGENTS = {"uniform": uniform, "greedy": greedy_chess}


def play(agent: str, batch: int):
    """A compiled function of a key: scores, moves and illegal moves of a batch of games."""
    env = PgxEnv("chess")

    def step(carry):
        key, state, over, score, moves, illegal = carry
        key, act_key, step_key = jax.random.split(key, 3)
        legal = jax.vmap(env.legal_actions)(state)
        seen = state[0].replace(observation=())
        action = jax.vmap(AGENTS[agent])(jax.random.split(act_key, batch), seen)
        after = jax.vmap(env.step)(jax.random.split(step_key, batch), state, action)
        outside = ~legal[jnp.arange(batch), action] & ~over
        score = jnp.where(over, score, (after.reward + 1) / 2)
        moves, illegal = moves + (~over).sum(), illegal + outside.sum()
        return key, after.state, over | after.terminated, score, moves, illegal

    def run(key):
        key, reset_key = jax.random.split(key)
        state, _ = jax.vmap(env.reset)(jax.random.split(reset_key, batch))
        zero = jnp.zeros((), jnp.int32)
        first = (key, state, jnp.zeros(batch, bool), jnp.zeros(batch), zero, zero)
        return jax.lax.while_loop(lambda c: ~c[2].all(), step, first)[3:]

    return jax.jit(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", choices=sorted(AGENTS), default="uniform")
    parser.add_argument("--games", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    run, scores, moves, illegal, began = play(args.agent, args.batch), [], 0, 0, time.time()
    while len(scores) < args.games:
        score, more, outside = run(jax.random.fold_in(jax.random.key(args.seed), len(scores)))
        scores, moves, illegal = [*scores, *np.asarray(score).tolist()], moves + int(more), illegal + int(outside)
        mean, half = np.mean(scores), 1.96 * np.std(scores) / np.sqrt(len(scores))
        rate = moves / (time.time() - began)
        print(
            f"{args.agent}: {len(scores)} games, {moves} moves of the agent, {illegal} illegal; "
            f"score {mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]; {rate:.0f} moves/s",
            flush=True,
        )
    assert illegal == 0, f"{illegal} illegal moves"


if __name__ == "__main__":
    main()
