"""After training: a run's policy as a callable, to act with, roll out, evaluate and watch.

policy = prx.policy("runs/x", **prx.best("runs/x").where)
policy(obs)                             # the greedy action for one observation or a batch
policy.evaluate(jax.random.key(1))      # returns of whole episodes
policy.render("x.gif", jax.random.key(1))
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from purejaxrl_ext.analysis import render, stats
from purejaxrl_ext.errors import check
from purejaxrl_ext.loops.evaluate import evaluate
from purejaxrl_ext.sweeps import checkpoints, results
from purejaxrl_ext.sweeps import dims as dimensions
from purejaxrl_ext.sweeps.sweep import load_state
from purejaxrl_ext.types import Algorithm, Array, PyTree, State


class Trajectory(NamedTuple):
    """T steps of one environment.

    Attributes:
        env_state: ``[T, ...]`` the environment's own states, each before its action.
        obs: ``[T, ...]`` what the policy saw there.
        action: ``[T, ...]`` as the environment took it.
        reward: ``[T]`` what the agent would have learned from; ``score``: ``[T]`` what counts in the return.
        terminated, truncated: ``[T]`` bool, as in training; the next step begins an episode.
        final_env_state, final_obs: where the last step led.
    """

    env_state: PyTree
    obs: Array
    action: Array
    reward: Array
    score: Array
    terminated: Array
    truncated: Array
    final_env_state: PyTree = ()
    final_obs: PyTree = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained agent that acts and no longer learns; normaliser statistics are frozen.

    Attributes:
        algorithm: what trained it.
        state: its trained State.
        greedy: the mode of the policy (greedy with respect to Q), or its samples.
        hparams: the run's traced settings.
    """

    algorithm: Algorithm
    state: State
    greedy: bool
    hparams: Any

    @property
    def env(self) -> Any:
        """The environment, in its wrappers."""
        return self.algorithm.env

    def __call__(self, obs: Any, key: Array | None = None) -> Array:
        """The action for one observation ``[...]``, or actions ``[B, ...]`` for a batch, as the environment takes them.

        Args:
            obs: of the environment's ``observation_shape``, raw, or a batch of such.
            key: of the sampling; needed unless the policy is greedy.

        Raises:
            ValueError: another shape, no key where one is needed, or a policy with a memory: that takes :meth:`step`.
        """
        memory = jax.tree.leaves(self.initial_carry())
        check(not memory, "policy", "recurrent", "one without a memory; carry its hidden state along with policy.step")
        return self.step((), obs, key)[0]

    def initial_carry(self, num: int | None = None) -> PyTree:
        """The hidden state before an episode's first observation, of one environment or of ``num``; () without a memory."""
        carry = self.algorithm.loop.initial_carry(num or 1)
        return carry if num else jax.tree.map(lambda x: x[0], carry)

    def step(self, carry: PyTree, obs: Any, key: Array | None = None) -> tuple[Array, PyTree]:
        """The action, as by calling, and the hidden state after it.

        Args:
            carry: of one environment, or ``[B, ...]`` with a batch of observations.
            obs, key: as when calling.
        """
        obs, shape = jnp.asarray(obs), tuple(self.env.observation_shape)
        fits = obs.ndim - len(shape) in (0, 1) and obs.shape[obs.ndim - len(shape) :] == shape
        check(fits, "obs.shape", obs.shape, f"{shape}, or a batch of it")
        check(self.greedy or key is not None, "key", key, "a random key where greedy=False")
        if obs.ndim > len(shape):
            return _act(self.algorithm.loop, self.greedy, self.state, carry, obs, key, self.hparams)
        carry = jax.tree.map(lambda x: x[None], carry)
        after = _act(self.algorithm.loop, self.greedy, self.state, carry, obs[None], key, self.hparams)
        return jax.tree.map(lambda x: x[0], after)

    def evaluate(self, key: Array, num_episodes: int = 32, max_steps: int | None = None) -> Array:
        """Undiscounted returns ``[num_episodes]`` of whole episodes, by :func:`purejaxrl_ext.evaluate`.

        The same key gives every policy on an environment the same initial states, and the same randomness in it.
        """
        return evaluate(self.algorithm, self.state, key, num_episodes, self.greedy, self.hparams, max_steps)

    def rollout(self, key: Array, num_steps: int | None = None, max_steps: int | None = None) -> Trajectory:
        """Act for a while, and keep all of it.

        Args:
            key: the first episode is the one that ``evaluate(key, 1)`` scores.
            num_steps: exactly so many steps, episodes one after another; None: one episode.
            max_steps: the one episode is cut here; None: at the environment's time limit, or 10,000.
        """
        for name, value in (("num_steps", num_steps), ("max_steps", max_steps)):
            check(value is None or value > 0, name, value, "None or greater than 0")
        check(num_steps is None or max_steps is None, "max_steps", max_steps, "None where num_steps is given")
        longest = num_steps or max_steps or self.env.time_limit or 10_000
        arguments = (self.algorithm.loop, self.env, self.greedy, longest, self.state, key, self.hparams)
        steps, after = _rollout(*arguments)
        if num_steps is None:
            done = np.flatnonzero(steps.terminated | steps.truncated)
            length = int(done[0]) + 1 if len(done) else longest
            steps, after = jax.tree.map(lambda x: x[:length], (steps, after))
        final_env_state, final_obs = jax.tree.map(lambda x: x[-1], after)
        return steps._replace(final_env_state=final_env_state, final_obs=final_obs)

    def frames(self, key: Array, max_steps: int | None = 500) -> np.ndarray:
        """Pictures ``[T + 1, H, W, 3]`` uint8 of one episode, its last state included; see :mod:`purejaxrl_ext.analysis.render`."""
        seen = self.rollout(key, max_steps=max_steps)
        states, obs = jax.tree.map(
            lambda x, last: jnp.concatenate([x, last[None]]),
            (seen.env_state, seen.obs),
            (seen.final_env_state, seen.final_obs),
        )
        return render.frames(self.env, states, obs)

    def render(self, path: str | Path, key: Array, max_steps: int | None = 500, fps: float = 30.0) -> Path:
        """Write one episode to ``path`` as a GIF; its first ``max_steps`` steps at most."""
        return render.gif(self.frames(key, max_steps), path, fps)


class Best(NamedTuple):
    """The best run of a sweep.

    Attributes:
        arm, seed: which; ``arm`` is a tuple of labels where arms have several dimensions.
        cell: the value of each swept setting.
        value: its mean return over the last tenth of training.
    """

    arm: Any
    seed: int
    cell: dict[str, float]
    value: float

    @property
    def where(self) -> dict[str, Any]:
        """What :func:`policy` and ``load_state`` take: ``policy(source, **best(source).where)``."""
        return {"arm": self.arm, "seed": self.seed, **self.cell}


def policy(
    source: str | Path | xr.Dataset,
    arm: Any = None,
    seed: int = 0,
    *,
    greedy: bool = True,
    algorithm: Algorithm | str | None = None,
    **cell: Any,
) -> Policy:
    """The policy of one run of a sweep.

    Args:
        source: a run's directory, or the dataset of a sweep with ``out=...`` or ``keep_states=True``.
        arm: its name; may be left out where there is one.
        seed: the seed.
        greedy: act by the mode of the policy, or sample (of a Q-learner, with ε as at the end of training).
        algorithm: what the arm ran, where it has an environment or a network of your own.
        **cell: the value of each swept setting.

    Raises:
        ValueError: an arm, seed or cell that the sweep does not have, or no state saved yet.

    Example::

        act = prx.policy("runs/x", arm="pfo", seed=3)
        action = act(obs)
    """
    arm, made, cell = dimensions.resolve(results.arm_dims(source), arm, algorithm, cell)
    state = load_state(source, arm=arm, seed=seed, algorithm=made, **cell)
    algorithm = made or _algorithm(source, arm)
    return Policy(algorithm, state, greedy, dataclasses.replace(algorithm.hparams, **cell))


def best(source: str | Path | xr.Dataset, last: float = 0.1) -> Best:
    """The arm, grid cell and seed with the highest mean ``episode_return`` over the last share ``last`` of its updates.

    Args:
        source: a run's directory, or the dataset of a sweep.
        last: see :func:`purejaxrl_ext.analysis.stats.scores`. Runs that diverged are no candidates.

    Raises:
        ValueError: no run has a return: all diverged, or no episode has ended in that share of training.
    """
    dataset = source if isinstance(source, xr.Dataset) else results.load(source)
    values = stats.scores(stats.whole(dataset), "episode_return", last)
    some = bool(values.notnull().any())
    check(some, "last", last, "a share of training in which a run that did not diverge has a return")
    top = values.isel(values.argmax(dim=list(values.dims)))
    at = {str(name): top[name].item() for name in values.dims}
    labels = tuple(at.pop(dim) for dim in results.arm_dims(dataset))
    return Best(labels if len(labels) > 1 else labels[0], at.pop("seed"), at, float(top))


def _algorithm(source: str | Path | xr.Dataset, arm: Any) -> Algorithm:
    """What an arm ran. ``load_state`` has checked that it is there."""
    if isinstance(source, xr.Dataset) and "states" in source.attrs:
        arms = source.attrs["states"].arms
        return arms[next(iter(arms)) if arm is None else arm]
    arms = results.read_config(source.attrs["path"] if isinstance(source, xr.Dataset) else source)["arms"]
    name = checkpoints.pick_arm({n: tuple(stored["labels"]) for n, stored in arms.items()}, arm)
    return checkpoints.remake(arms[name]["settings"])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _act(
    loop: Any, greedy: bool, state: State, carry: PyTree, obs: Array, key: Array | None, hparams: Any
) -> tuple[Array, PyTree]:
    """Actions ``[B, ...]`` for ``[B, ...]``, and hidden states; exploration is as at the end of training so far."""
    noise = None if greedy else loop.noise(key, obs.shape[:1])
    env_steps = state.update.astype(jnp.float32) * loop.steps_per_update
    acted = loop.act(state.params, state.normalizer, obs, noise, hparams, env_steps, carry)
    return acted.env_action, acted.carry


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _rollout(
    loop: Any, env: Any, greedy: bool, num_steps: int, state: State, key: Array, hparams: Any
) -> tuple[Trajectory, tuple[PyTree, Array]]:
    """``num_steps`` steps from a fresh state on, and after each the true next state and observation."""
    # Keys as in evaluate, of which this is the only episode.
    reset_key, key = jax.random.split(key)

    def step(carry: tuple, time: Array) -> tuple[tuple, tuple]:
        env_state, obs, memory, length = carry
        noise_key, step_key = jax.random.split(jax.random.fold_in(key, time))
        (action,), memory = _act(loop, greedy, state, memory, obs[None], noise_key, hparams)
        after = env.step(jax.random.split(step_key, 1)[0], env_state, action)
        truncated = jnp.zeros((), bool) if after.truncated is None else after.truncated
        if env.time_limit is not None:
            truncated = truncated | (length + 1 >= env.time_limit)
        truncated = truncated & ~after.terminated
        score = after.reward if after.score is None else after.score
        now = Trajectory(env_state, obs, action, after.reward, score, after.terminated, truncated)
        done = after.terminated | truncated
        fresh = env.reset(jax.random.fold_in(reset_key, time))
        going = jax.tree.map(lambda f, g: jnp.where(done, f, g), fresh, (after.state, after.obs))
        memory = jax.tree.map(lambda x, y: jnp.where(done, x, y), loop.initial_carry(1), memory)
        return (*going, memory, jnp.where(done, 0, length + 1)), (now, (after.state, after.obs))

    start = (*env.reset(jax.random.split(reset_key, 1)[0]), loop.initial_carry(1), jnp.zeros((), jnp.int32))
    return jax.lax.scan(step, start, jnp.arange(num_steps))[1]
