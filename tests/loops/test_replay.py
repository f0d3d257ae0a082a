"""The ring, n-step windows and the sum tree, against plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext.loops import replay


def transitions(numbers, terminated=(), truncated=()):
    """Transitions named by their number: obs i, next_obs i + 0.5, reward i."""
    n = jnp.asarray(numbers, jnp.float32)
    flags = [jnp.asarray([i in ends for i in numbers]) for ends in (terminated, truncated)]
    return replay.Transitions(n[:, None], jnp.asarray(numbers, jnp.int32), n, *flags, n[:, None] + 0.5)


@pytest.mark.parametrize(("capacity", "first", "per_update"), [(12, 4, 4), (13, 4, 4), (7, 3, 5), (10, 10, 3)])
def test_ring_holds_the_newest_at_any_size(capacity, first, per_update):
    ring = replay.create(transitions(list(range(first))), capacity)
    aligned = capacity % per_update == 0 and first % per_update == 0
    total = first
    for update in range(20):
        slot, held = replay.position(first, per_update, jnp.int32(update), capacity)
        assert int(slot) == total % capacity
        assert int(held) == min(total, capacity)
        ring = replay.add(ring, transitions(list(range(total, total + per_update))), slot, aligned)
        total += per_update
        newest = range(max(0, total - capacity), total)
        expected = {i % capacity: i for i in newest}
        for where, number in expected.items():
            assert float(ring.transitions.reward[where]) == number
            assert float(ring.transitions.next_obs[where, 0]) == number + 0.5


def test_position_past_int32_transitions():
    capacity, per_update = 1_000_000, 1_000
    updates = 2**31 - 2
    slot, held = replay.position(500, per_update, jnp.int32(updates), capacity)
    assert int(slot) == (500 + updates * per_update) % capacity
    assert int(held) == capacity
    with pytest.raises(ValueError, match="replay_capacity=99999989"):
        replay.position(500, per_update, jnp.int32(0), 99_999_989)


@pytest.mark.parametrize(("slot", "held", "capacity", "margin"), [(5, 5, 16, 0), (3, 10, 10, 0), (3, 10, 10, 4)])
def test_uniform_draws_each_held_transition_alike(slot, held, capacity, margin):
    bits = jax.random.bits(jax.random.key(0), (60_000,))
    drawn = np.asarray(replay.uniform(bits, jnp.int32(slot), jnp.int32(held), capacity, margin))
    allowed = [(slot - held + i) % capacity for i in range(held - margin)]
    counts = np.bincount(drawn, minlength=capacity)
    assert counts.sum() == counts[allowed].sum()
    # Five standard deviations of a count.
    share = 60_000 / len(allowed)
    assert np.all(np.abs(counts[allowed] - share) < 5 * np.sqrt(share))


def test_window_against_a_loop():
    """Two environments, wrap-around, a termination and a truncation inside windows."""
    num_envs, n_step, capacity, gamma = 2, 3, 13, 0.9
    numbers = list(range(9, 22))  # in slots 9 … 12, 0 … 8
    terminated, truncated = {13, 18}, {16}
    ring = replay.create(transitions(list(range(capacity))), capacity)
    for number in numbers:
        one = transitions([number], terminated, truncated)
        ring = replay.add(ring, one, jnp.int32(number % capacity), False)
    starts = numbers[: len(numbers) - (n_step - 1) * num_envs]
    reward, discount, last = replay.window(ring, jnp.array([s % capacity for s in starts]), num_envs, n_step, gamma)
    for i, start in enumerate(starts):
        total, number = 0.0, start
        for k in range(n_step):
            number = start + k * num_envs
            total += gamma**k * number
            if number in terminated | truncated:
                break
        np.testing.assert_allclose(reward[i], total, rtol=1e-6)
        np.testing.assert_allclose(discount[i], gamma ** (k + 1), rtol=1e-6)
        assert int(last[i]) == number % capacity


def test_sum_tree_totals_and_frequencies():
    values = jnp.array([0.0, 1.0, 3.0, 0.5, 0.0, 5.5])
    priorities = replay.set_priorities(replay.first_priorities(6, 0), jnp.arange(6), values)
    np.testing.assert_allclose(priorities.tree[1], 10.0)
    assert float(priorities.largest) == 5.5
    slots, probability = replay.proportional(priorities, jax.random.uniform(jax.random.key(1), (50_000,)))
    counts = np.bincount(np.asarray(slots), minlength=6)
    np.testing.assert_allclose(counts / 50_000, values / 10.0, atol=0.002)
    np.testing.assert_allclose(probability, np.asarray(values)[np.asarray(slots)] / 10.0, rtol=1e-6)


def test_sum_tree_never_draws_what_is_closed():
    """Mass exactly at a boundary, and rounding, must not lead into an empty branch."""
    priorities = replay.set_priorities(replay.first_priorities(8, 0), jnp.array([2, 5]), jnp.array([0.3, 0.7]))
    for uniform in (0.0, 1.0 - 2**-24):
        slots, _ = replay.proportional(priorities, jnp.full(8, uniform))
        assert set(np.asarray(slots).tolist()) <= {2, 5}


@pytest.mark.parametrize("n_step", [1, 3])
def test_only_complete_windows_are_open(n_step):
    """After each write exactly the slots whose n steps are there have a priority."""
    capacity, num_envs = 11, 2
    margin = (n_step - 1) * num_envs
    first = 6
    priorities = replay.first_priorities(capacity, first - margin)
    total = first
    for _ in range(12):
        priorities = replay.open_and_close(
            priorities, jnp.int32(total % capacity), num_envs, num_envs, n_step, capacity
        )
        total += num_envs
        leaves = np.asarray(priorities.tree[len(priorities.tree) // 2 :][:capacity])
        open_slots = {i % capacity for i in range(max(0, total - capacity), total - margin)}
        assert set(np.flatnonzero(leaves).tolist()) == open_slots
        np.testing.assert_allclose(priorities.tree[1], len(open_slots), rtol=1e-6)


def test_importance_weights():
    """(N P)^−β over the largest: β = 1 undoes the draw's bias, β = 0 leaves all alike."""
    relative = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(replay.importance_weights(relative, jnp.float32(1.0)), [1.0, 0.5, 0.25])
    np.testing.assert_allclose(replay.importance_weights(relative, jnp.float32(0.0)), [1.0, 1.0, 1.0])


def test_observations_keep_their_dtype():
    planes = replay.Transitions(*itertools.repeat(jnp.zeros((3,), bool), 5), next_obs=jnp.zeros((3, 2, 2), bool))
    assert replay.create(planes, 7).transitions.next_obs.dtype == jnp.bool_
