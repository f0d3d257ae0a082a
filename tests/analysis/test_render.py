"""Pictures: what they show is where the state says, through wrappers too; GIFs are what was drawn."""

import base64
import io
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toys import Clock

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import render
from purejaxrl_ext.envs import drawing, gymnax_drawings


def states_of(name, steps=6, action=1, seed=0, **wrappers):
    """An environment and its states and observations ``[T, ...]`` under one action throughout."""
    env = prx.make_env(name, **wrappers)
    key = jax.random.key(seed)

    def step(carry, _):
        after = env.step(key, carry[0], jnp.asarray(action))
        return (after.state, after.obs), carry

    _, (states, obs) = jax.jit(lambda: jax.lax.scan(step, env.reset(key), None, steps))()
    return env, states, obs


def middle(picture, color):
    """Centre (row, column) of the pixels of a colour, as a share of the picture."""
    rows, columns = np.nonzero((picture == color).all(-1))
    assert len(rows)
    return rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]


# --- states ----------------------------------------------------------------------------------------------------------


def test_the_cart_is_where_the_state_says():
    env, states, obs = states_of("CartPole-v1", steps=9)
    got = render.frames(env, states, obs)
    assert got.dtype == np.uint8 and got.shape[::3] == (9, 3)
    for picture, x in zip(got, np.asarray(states.x), strict=True):
        assert middle(picture, drawing.BLUE)[1] == pytest.approx((x + 2.6) / 5.2, abs=0.01)
    assert (got[0] != got[-1]).any()


@pytest.mark.parametrize(("theta", "side"), [(0.3, 1), (-0.3, -1)])
def test_the_pole_leans_as_the_state_says(theta, side):
    picture = np.asarray(gymnax_drawings.cart_pole(None, SimpleNamespace(x=1.0, theta=theta)))
    assert np.sign(middle(picture, render.ORANGE)[1] - middle(picture, drawing.BLUE)[1]) == side


def test_the_car_is_on_the_road():
    for x in (-1.1, -0.5, 0.4):
        row, column = middle(np.asarray(gymnax_drawings.mountain_car(None, SimpleNamespace(position=x))), drawing.BLUE)
        assert column == pytest.approx((x + 1.25) / 1.9, abs=0.01)
        assert row == pytest.approx((0.75 - 0.45 * np.sin(3 * x) - 0.05) / 1.3, abs=0.01)


@pytest.mark.parametrize(("angles", "row", "column"), [((0.0, 0.0), 0.84, 0.5), ((np.pi, 0.0), 0.16, 0.5),
                                                       ((0.0, np.pi / 2), 0.73, 0.61), ((np.pi / 2, 0.0), 0.5, 0.84)])  # fmt: skip
def test_the_second_link_is_where_both_angles_put_it(angles, row, column):
    state = SimpleNamespace(joint_angle1=angles[0], joint_angle2=angles[1])
    np.testing.assert_allclose(
        middle(np.asarray(gymnax_drawings.acrobot(None, state)), render.ORANGE), (row, column), atol=0.03
    )


@pytest.mark.parametrize(("theta", "row", "column"), [(0.0, 0.31, 0.5), (np.pi, 0.69, 0.5), (np.pi / 2, 0.5, 0.31)])
def test_the_pendulum_is_where_its_angle_says(theta, row, column):
    got = middle(np.asarray(gymnax_drawings.pendulum(None, SimpleNamespace(theta=theta))), render.ORANGE)
    np.testing.assert_allclose(got, (row, column), atol=0.03)


@pytest.mark.parametrize("wrappers", [{"append_time": True}, {"sticky_actions": 0.5, "mask_rewards": 0.5}])
def test_wrappers_do_not_hide_the_state(wrappers):
    env, states, obs = states_of("CartPole-v1", **wrappers)
    inner, inner_states = render.unwrap(env, states)
    assert inner == prx.make_env("CartPole-v1")
    np.testing.assert_array_equal(inner_states.x, obs[:, 0])
    assert render.frames(env, states, obs).shape == (6, 92, 240, 3)
    assert middle(render.frames(env, states, obs)[-1], drawing.BLUE)


def test_both_wrappers_of_the_state_at_once():
    env, states, obs = states_of("CartPole-v1", append_time=True, sticky_actions=0.5)
    np.testing.assert_array_equal(render.unwrap(env, states)[1].x, obs[:, 0])


# --- observations ----------------------------------------------------------------------------------------------------


def test_breakout_is_drawn_cell_by_cell():
    env, states, obs = states_of("Breakout-MinAtar", steps=4, action=2, sticky_actions=0.1)
    got, cell = render.frames(env, states, obs), 24
    assert got.shape == (4, 240, 240, 3)
    for picture, pos, row, column in zip(got, states[0].pos, states[0].ball_y, states[0].ball_x, strict=True):
        assert tuple(picture[9 * cell + 5, int(pos) * cell + 5]) == render.CHANNELS[0]
        assert tuple(picture[int(row) * cell + 5, int(column) * cell + 5]) == render.CHANNELS[1]
        assert tuple(picture[cell + 5, 5]) == render.CHANNELS[3]  # a brick
        assert tuple(picture[5, 5]) == (0, 0, 0)
    assert len({p.tobytes() for p in got}) > 1


@pytest.mark.parametrize("game", ["Asterix", "Freeway", "Seaquest", "SpaceInvaders"])
def test_every_minatar_game_shows_the_agent_and_every_channel_that_is_set(game):
    _, _, obs = states_of(f"{game}-MinAtar", steps=30)
    small = render.images(np.asarray(obs))[:, 12::24, 12::24]
    obs = np.asarray(obs)
    np.testing.assert_array_equal((small == render.CHANNELS[0]).all(-1), obs[..., 0])
    np.testing.assert_array_equal((small != 0).any(-1), obs.any(-1))


def test_images_of_numbers_are_shaded_and_bytes_are_kept():
    got = render.images(np.array([[[0.0, 0.5], [1.0, -1.0]]]))[0, ::120, ::120, 0]
    np.testing.assert_array_equal(got, [[120, 180], [240, 0]])
    rgb = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 3), dtype=np.uint8)
    np.testing.assert_array_equal(render.images(rgb)[:, ::2, ::2], rgb)


def test_other_vectors_are_bars_from_their_zero():
    got = render.bars(np.array([[1.0, -4.0, 0.0], [-2.0, 2.0, 0.0]]))
    up, down = ((got == c).all(-1) for c in (drawing.BLUE, render.ORANGE))
    third = got.shape[2] // 3
    heights = [[[part[t, :, i * third : (i + 1) * third].any(-1).sum() for i in range(2)] for part in (up, down)]
               for t in range(2)]  # fmt: skip
    full = got.shape[1] / 2.2
    np.testing.assert_allclose(heights, [[[full / 2, 0], [0, full]], [[0, full / 2], [full, 0]]], atol=2)
    env, states, obs = Clock(), jnp.ones((2, 2)), jnp.ones((2, 2))
    assert render.frames(env, states, obs).shape == (2, 132, 240, 3)


@dataclass(frozen=True)
class Painted(Clock):
    """A Clock that shows its time as a grey."""

    dtype: str = "uint8"

    def render(self, env_state):
        return np.full((4, 6, 3), env_state[1], self.dtype)


def test_an_environment_may_draw_itself():
    states = jnp.stack([jnp.zeros(5), jnp.arange(5.0)], axis=-1)
    got = render.frames(Painted(), states, states)
    np.testing.assert_array_equal(got, np.broadcast_to(np.arange(5)[:, None, None, None], (5, 4, 6, 3)))
    with pytest.raises(ValueError, match=r"clock.render='float64\[4, 6, 3\]'.*uint8"):
        render.frames(Painted(dtype="float64"), states, states)


# --- files -----------------------------------------------------------------------------------------------------------


def read(data):
    image, out = Image.open(io.BytesIO(data)), []
    for i in range(image.n_frames):
        image.seek(i)
        out.append((np.asarray(image.convert("RGB")), image.info["duration"]))
    return [f for f, _ in out], [d for _, d in out]


def moving(count, size=60):
    """A square that walks."""
    out = np.zeros((count, size, size, 3), np.uint8)
    for t in range(count):
        out[t, 3:9, t % (size - 6) : t % (size - 6) + 6] = (200, 30, t % 3)
    return out


def test_a_gif_holds_every_frame_in_its_very_colours(tmp_path):
    frames = moving(40)
    path = render.gif(frames, tmp_path / "new" / "x.gif", fps=20)
    got, durations = read(path.read_bytes())
    np.testing.assert_array_equal(got, frames)
    assert durations == [50] * 40


def test_frames_are_as_fast_as_the_innermost_environment_says():
    @dataclass(frozen=True)
    class Wrapped:
        env: object

    assert render.frame_rate(Clock()) == 30.0
    assert render.frame_rate(Wrapped(Wrapped(SimpleNamespace(fps=4)))) == 4.0
    assert render.frame_rate(SimpleNamespace(fps=4, env=SimpleNamespace(fps=9))) == 4.0
    assert render.frame_rate(SimpleNamespace(fps=120)) == 50.0  # what a GIF can do


def test_equal_frames_in_a_row_are_one_for_as_long():
    got, durations = read(render.encode(moving(4).repeat(3, axis=0), fps=50))
    np.testing.assert_array_equal(got, moving(4))
    assert durations == [60] * 4


def test_pictures_of_many_colours_are_near():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.stack(
        [np.broadcast_to(ramp, (64, 64)), np.broadcast_to(ramp[:, None], (64, 64)), np.full((64, 64), 9)], -1
    )
    frames = np.stack([picture, picture[::-1]]).astype(np.uint8)
    got, _ = read(render.encode(frames, fps=10))
    assert len(got) == 2
    assert np.abs(np.array(got, float) - frames).mean() < 10


def test_an_animation_is_small_and_shows_in_a_notebook():
    noise = np.random.default_rng(0).integers(0, 4, (60, 240, 240, 1), dtype=np.uint8)
    frames = np.broadcast_to(noise * 80, (60, 240, 240, 3))
    shown = render.animation(frames, fps=30)
    assert 10_000 < len(shown.data) <= 100_000
    html = shown._repr_html_()
    assert base64.b64decode(html.split("base64,")[1].split('"')[0]) == shown.data
    # As long as the whole.
    assert sum(read(shown.data)[1]) == pytest.approx(2000, rel=0.15)
    assert len(read(render.animation(moving(40)).data)[0]) == 40


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: render.encode(np.zeros((2, 3, 3, 3)), 30), r"frames='float64\[2, 3, 3, 3\]'.*uint8"),
        (lambda: render.encode(np.zeros((0, 3, 3, 3), np.uint8), 30), "frames"),
        (lambda: render.encode(moving(2), 60), "fps=60"),
        (lambda: render.gif(moving(2), "x.mp4"), r"path='x.mp4'.*'\.gif'"),
        (lambda: render.animation(moving(200, 240), max_bytes=100), "max_bytes=100"),
        (lambda: render.frames(Clock(), np.zeros((0, 2)), np.zeros((0, 2))), "at least one step"),
    ],
)
def test_bad_input_names_what_is_allowed(call, match):
    with pytest.raises(ValueError, match=match):
        call()
