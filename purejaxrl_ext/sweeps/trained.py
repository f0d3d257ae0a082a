"""After training: a run's policy as a callable, to act with, roll out, evaluate and watch.

policy = prx.policy("runs/x", **prx.best("runs/x").where)
policy(obs)                             # the greedy action for one observation or a batch
policy.evaluate(jax.random.key(1))      # returns of whole episodes
policy.render("x.gif", jax.random.key(1))
"""

from __future__ import annotations

import dataclasses
import functools
import html
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from purejaxrl_ext.analysis import render, stats
from purejaxrl_ext.devices import isolated
from purejaxrl_ext.envs.base import settle
from purejaxrl_ext.errors import check
from purejaxrl_ext.loops.evaluate import evaluate
from purejaxrl_ext.sweeps import dims as dimensions
from purejaxrl_ext.sweeps import play, results, states
from purejaxrl_ext.sweeps.sweep import load_state
from purejaxrl_ext.types import Algorithm, Array, PyTree, State, abstract_key


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
    """A trained agent that acts and no longer learns; normaliser statistics are frozen. It can be pickled.

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

    def __repr__(self) -> str:
        acts = "greedy" if self.greedy else "sampling"
        return f"<policy of {self.algorithm.name} on {self.algorithm.env_name}, {acts}, {self._age()}>"

    def _repr_html_(self) -> str:
        rows = {
            "acts": "greedily" if self.greedy else "by sampling",
            "trained": self._age(),
            "parameters": f"{sum(x.size for x in jax.tree.leaves(self.state.params)):,}",
            # A cell of a sweep has other traced settings than its arm.
            **dict(self.algorithm.settings),
            **{f.name: getattr(self.hparams, f.name) for f in dataclasses.fields(self.hparams)},
        }
        cells = "".join(
            f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v)[:80])}</td></tr>" for k, v in rows.items()
        )
        return f"<details><summary>{html.escape(repr(self))}</summary><table>{cells}</table></details>"

    def _age(self) -> str:
        return f"{self.state.update} updates of {self.algorithm.steps_per_update} environment steps"

    @property
    def env(self) -> Any:
        """The environment, in its wrappers."""
        return self.algorithm.env

    def __call__(self, obs: Any, key: Array | None = None) -> Array:
        """The action for one observation ``[...]``, or actions ``[B, ...]`` for a batch, as the environment takes them.

        Args:
            obs: of the environment's ``observation_shape``, raw, or a batch of such; cast to the dtype that the environment
                gives, in which the policy was trained.
            key: of the sampling; needed unless the policy is greedy.

        Raises:
            ValueError: another shape, numbers that the environment's dtype cannot hold (0.5 where it gives uint8, 255 where
                it gives bool), no key where one is needed, or a policy with a memory: that takes :meth:`step`.
        """
        memory = jax.tree.leaves(self.initial_carry())
        check(not memory, "policy", "recurrent", "one without a memory; carry its hidden state along with policy.step")
        return self.step((), obs, key)[0]

    @isolated()
    def initial_carry(self, num: int | None = None) -> PyTree:
        """The hidden state before an episode's first observation, of one environment or of ``num``; () without a memory."""
        carry = self.algorithm.loop.initial_carry(num or 1)
        return carry if num else jax.tree.map(lambda x: x[0], carry)

    @isolated()
    def step(self, carry: PyTree, obs: Any, key: Array | None = None) -> tuple[Array, PyTree]:
        """The action, as by calling, and the hidden state after it.

        Args:
            carry: of one environment, or ``[B, ...]`` with a batch of observations.
            obs, key: as when calling.
        """
        obs, shape = _cast(obs, _obs_dtype(self.env)), tuple(self.env.observation_shape)
        fits = obs.ndim - len(shape) in (0, 1) and obs.shape[obs.ndim - len(shape) :] == shape
        check(fits, "obs.shape", obs.shape, f"{shape}, or a batch of it")
        check(self.greedy or key is not None, "key", key, "a random key where greedy=False")
        if obs.ndim > len(shape):
            return _act(self.algorithm.loop, self.greedy, self.state, carry, obs, key, self.hparams)
        carry = jax.tree.map(lambda x: x[None], carry)
        after = _act(self.algorithm.loop, self.greedy, self.state, carry, obs[None], key, self.hparams)
        return jax.tree.map(lambda x: x[0], after)

    @isolated()
    def evaluate(self, key: Array, num_episodes: int = 32, max_steps: int | None = None) -> Array:
        """Undiscounted returns ``[num_episodes]`` of whole episodes, by :func:`purejaxrl_ext.evaluate`.

        The same key gives every policy on an environment the same initial states, and the same randomness in it.
        """
        return evaluate(self.algorithm, self.state, key, num_episodes, self.greedy, self.hparams, max_steps)

    @isolated()
    def rollout(self, key: Array, num_steps: int | None = None, max_steps: int | None = None) -> Trajectory:
        """Act for a while, and keep all of it.

        Args:
            key: the first episode is the one that ``evaluate(key, 1)`` scores.
            num_steps: exactly so many steps, episodes one after another; None: one episode.
            max_steps: the one episode is cut here; None: at the environment's time limit, or 10,000. It ends at the time
                limit in any case.
        """
        for name, value in (("num_steps", num_steps), ("max_steps", max_steps)):
            check(value is None or value > 0, name, value, "None or greater than 0")
        check(num_steps is None or max_steps is None, "max_steps", max_steps, "None where num_steps is given")
        limit = self.env.time_limit or max_steps or 10_000
        longest = num_steps or min(max_steps or limit, limit)
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

    def render(self, path: str | Path, key: Array, max_steps: int | None = 500, fps: float | None = None) -> Path:
        """Write one episode to ``path`` as a GIF; its first ``max_steps`` steps at most.

        Args:
            path: the file, whose name ends in ``.gif``.
            key, max_steps: as in :meth:`rollout`.
            fps: frames per second; None: the environment's own ``fps``, or 30.
        """
        render.check_path(path)  # before the episode, which may take a while
        return render.gif(self.frames(key, max_steps), path, fps or render.frame_rate(self.env))

    def play(
        self,
        env: Any,
        num_episodes: int = 1,
        seed: int = 0,
        path: str | Path | None = None,
        max_steps: int | None = None,
        fps: float | None = None,
    ) -> play.Played:
        """Act in an environment of Gymnasium's, which is stepped from Python, and not in the policy's own.

        It sees through the wrappers of its own: a stack of frames, the time, a mask of legal actions, which comes from
        ``info["action_mask"]`` where there is one. Sticky actions and changed rewards are not brought along.

        Args:
            env: from ``gymnasium.make``; one made with ``render_mode="human"`` shows itself.
            num_episodes: how many.
            seed: of the first episode; the others have the next ones. Of the sampling too, unless the policy is greedy.
            path: a GIF to write, of an environment made with ``render_mode="rgb_array"``.
            max_steps: cuts each episode; None: only the environment does.
            fps: frames per second; None: what the environment says, or 30.

        Returns:
            returns and lengths of the episodes.

        Raises:
            ValueError: another action space, or observations of another shape, than the policy was trained with.

        Example::

            env = gymnasium.make("LunarLander-v3", render_mode="rgb_array")
            policy.play(env, num_episodes=3, path="landing.gif").returns
        """
        return play.play(self, env, num_episodes, seed, path, max_steps, fps)


class Best(NamedTuple):
    """The best run of a sweep.

    Attributes:
        arm: its name; where arms have several dimensions, its labels along them, ``("ppo", 8)``.
        seed: which.
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


@isolated()
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
        arm: its name, or where arms have several dimensions its labels, ``("ppo", 8)``; may be left out where there is
            one.
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
    check(made is None or isinstance(made, Algorithm), "algorithm", made, "an algorithm from prx.make")
    arm, seed, cell = states.find(source, arm, seed, cell)
    state = load_state(source, arm=arm, seed=seed, algorithm=made, **cell)
    made = made or states.algorithm_of(source, arm)
    return Policy(made, state, greedy, made.hparams.replace(**cell))


def best(source: str | Path | xr.Dataset, last: float = 0.1) -> Best:
    """The arm, grid cell and seed with the highest mean ``episode_return`` over the last share ``last`` of its updates.

    Args:
        source: a run's directory, or the dataset of a sweep, or a part that was selected of it.
        last: see :func:`purejaxrl_ext.analysis.stats.scores`. Runs that diverged are no candidates.

    Raises:
        ValueError: no run has a return: all diverged, or no episode has ended in that share of training.
    """
    dataset = stats.whole(source if isinstance(source, xr.Dataset) else results.load(source))
    values = stats.scores(dataset, "episode_return", last)
    some = bool(values.notnull().any())
    check(some, "last", last, "a share of training in which a run that did not diverge has a return")
    top = values.isel(values.argmax(dim=list(values.dims)))
    at = {str(name): top[name].item() for name in top.coords}  # also of what was selected before
    arm = tuple(at.pop(name) for name in stats.arm_dims(dataset))
    return Best(arm[0] if len(arm) == 1 else arm, at.pop("seed"), at, float(top))


@functools.lru_cache(maxsize=256)
def _obs_dtype(env: Any) -> np.dtype:
    """What the environment's observations are made of."""
    return np.dtype(jax.eval_shape(env.reset, abstract_key())[1].dtype)


def _cast(obs: Any, dtype: np.dtype) -> Array:
    """Observations as the environment gives them: the network takes uint8 for pixels, and bool or float as they are.

    Raises:
        ValueError: numbers that ``dtype`` cannot hold.
    """
    obs = obs if isinstance(obs, jax.Array) else np.asarray(obs)
    if obs.dtype == dtype or jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(obs, dtype)
    allowed = f"{dtype}, as the environment gives it, or numbers which that can hold"
    # Inside jit there are no numbers to look at: only what always fits is cast.
    if isinstance(obs, jax.core.Tracer):
        check(np.can_cast(obs.dtype, dtype), "obs.dtype", str(obs.dtype), allowed)
        return obs.astype(dtype)
    values = np.asarray(obs)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    odd = (
        values[~((values >= low) & (values <= high) & (values == np.floor(values)))]
        if values.dtype != bool
        else values[:0]
    )
    check(odd.size == 0, "obs", odd.ravel()[:1].tolist(), allowed)
    return jnp.asarray(values.astype(dtype))


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
        after = settle(env, after, length + 1)
        now = Trajectory(env_state, obs, action, after.reward, after.score, after.terminated, after.truncated)
        done = after.terminated | after.truncated
        fresh = env.reset(jax.random.fold_in(reset_key, time))
        going = jax.tree.map(lambda f, g: jnp.where(done, f, g), fresh, (after.state, after.obs))
        memory = jax.tree.map(lambda x, y: jnp.where(done, x, y), loop.initial_carry(1), memory)
        return (*going, memory, jnp.where(done, 0, length + 1)), (now, (after.state, after.obs))

    start = (*env.reset(jax.random.split(reset_key, 1)[0]), loop.initial_carry(1), jnp.zeros((), jnp.int32))
    return jax.lax.scan(step, start, jnp.arange(num_steps))[1]
