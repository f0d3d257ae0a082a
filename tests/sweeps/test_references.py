"""Settings as JSON and back: what an arm is, whoever asks and in whichever process."""

import enum
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.envs import mdps
from purejaxrl_ext.interventions import Intervention
from purejaxrl_ext.rules import ppo
from purejaxrl_ext.sweeps import checkpoints, references
from purejaxrl_ext.sweeps.references import difference, import_path, lost, plain, restored
from purejaxrl_ext.types import hparam


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    scale: float = 1.0
    function: Any = nn.relu


class Parts(NamedTuple):
    """Like a recipe: a value made of functions."""

    rule: Any
    kind: type = Inner


class Module(nn.Module):
    widths: tuple = (3, 4)
    activation: Any = nn.relu
    inner: Any = None
    table: Any = None


class Opaque:
    """An object of one's own that says nothing of itself."""

    def __init__(self, walls):
        self.walls = walls

    @functools.cached_property
    def area(self):
        return self.walls.sum()

    def method(self):
        return self.walls


HELD = Intervention("held", hparams={"held_coef": hparam(0.1, low=0.0)}, before=lambda net, learner, context: learner)
RECIPE = prx.ALGORITHMS["ppo"].but(name="mine", rule=lambda config, space: ppo.rule(config, space))
OPAQUE = Opaque(np.zeros((50, 50)))
BY_NAME = Parts(rule=lambda x: x)


def stored(value):
    return json.loads(json.dumps(plain(value)))


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        (1, (2, "x")),
        {"a": (1, 2)},
        {1: "a", 2: "b"},
        Colour.RED,
        nn.relu,
        jnp.tanh,
        np.tanh,
        jnp.float32,
        np.dtype("float32"),
        jnp.dtype("bfloat16"),
        frozenset({"a", "b"}),
        Path("x/y"),
        ppo.rule,
        ppo.PPOHparams,
        Clock(time_limit=3),
        Inner(2.0, jnp.tanh),
        Parts(ppo.rule),
        Parts(ppo.rule)._replace(kind=Clock),
        prx.ALGORITHMS["ppo"],
        prx.ALGORITHMS["ppo"].but(name="mine", rule=ppo.rule, network=Parts),
        Module(),
        Module(activation=nn.gelu, inner=Module(widths=(1,))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_comes_back(value):
    assert lost(stored(value)) is None
    assert restored(stored(value)) == value
    assert plain(restored(stored(value))) == plain(value)


@pytest.mark.parametrize("name", ["OPAQUE", "BY_NAME", "RECIPE", "HELD"])
def test_what_a_module_holds_comes_back_by_its_name(name):
    value = globals()[name]
    assert stored(value)["import"] == f"{__name__}:{name}"
    assert restored(stored(value)) is value


def test_an_algorithm_of_ones_own_parts_comes_back():
    """Its recipe and its intervention are values in a module, made of functions that have no name there."""
    algorithm = prx.make(RECIPE, "CartPole-v1", interventions=("l2_init", HELD), held_coef=0.5, num_envs=2, num_steps=8)
    settings = {k: stored(v) for k, v in algorithm.settings.items()}
    again = checkpoints.remake(settings)
    assert again.settings == algorithm.settings
    assert again.loop is algorithm.loop


def test_a_partial_and_a_method_come_back():
    again = restored(stored(functools.partial(jax.nn.leaky_relu, negative_slope=0.3)))
    assert again(-1.0) == pytest.approx(-0.3)
    assert restored(stored(OPAQUE.method))() is OPAQUE.walls


@pytest.mark.parametrize("value", [np.arange(6.0).reshape(2, 3), np.array(["ab", "c"]), jnp.ones(3, jnp.bfloat16)])
def test_small_arrays_come_back_as_they_were(value):
    again = restored(stored(value))
    assert isinstance(again, jax.Array) == isinstance(value, jax.Array)
    assert again.dtype == value.dtype
    np.testing.assert_array_equal(np.asarray(again), np.asarray(value))


def test_a_key_comes_back():
    key = jax.random.key(3, impl="rbg")
    again = restored(stored(key))
    assert again.dtype == key.dtype
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(key))


def test_an_environment_of_arrays_comes_back():
    """Its class compares arrays by itself, and a repr would not say them."""
    env = prx.TabularEnv(mdps.random_walk(5), time_limit=9)
    assert lost(stored(env)) is None
    assert restored(stored(env)) == env


def changed(walls):
    walls = np.array(walls)
    walls[25, 25] = 1.0
    return walls


WALLS = np.zeros((50, 50), np.float32)


@dataclass(frozen=True, eq=False)
class Maze(Clock):
    walls: Any = field(default_factory=lambda: WALLS)


def closes_over(walls):
    return lambda x: x * walls.sum()


@pytest.mark.parametrize(
    "make",
    [
        lambda walls: walls,
        jnp.asarray,
        lambda walls: Maze(walls=walls),
        lambda walls: {"env_params": {"walls": walls}},
        lambda walls: Module(table=walls),
        lambda walls: Module(inner=Module(table=jnp.asarray(walls))),
        Opaque,
        lambda walls: Opaque([{"deep": Opaque(walls)}]),
        closes_over,
        lambda walls: functools.partial(jnp.add, walls),
        lambda walls: Parts(rule=closes_over(walls)),
        lambda walls: Maze(walls=np.tile(walls, (4, 4))),
    ],
)
def test_another_array_is_another_setting(make):
    """A repr elides the middle of a large one."""
    same, other = make(np.zeros((50, 50), np.float32)), make(changed(WALLS))
    assert difference(stored(same), stored(make(np.zeros((50, 50), np.float32)))) is None
    assert difference(stored(same), stored(other)) is not None


def test_what_was_worked_out_meanwhile_is_no_difference():
    one = Opaque(WALLS)
    before = stored(one)
    assert one.area == 0
    assert difference(stored(one), before) is None


def test_numbers_that_are_equal_are_equal():
    assert difference(stored(Inner(float("nan"))), stored(Inner(float("nan")))) is None
    assert difference(stored(Inner(1)), stored(Inner(1.0))) is None
    assert difference({"a": None}, {"a": None, "b": None}) is not None


@dataclass(frozen=True)
class Doubles:
    """Makes another of itself from its own fields."""

    width: int = 1

    def __post_init__(self):
        object.__setattr__(self, "width", 2 * self.width)


def test_what_its_fields_do_not_make_again_is_not_stored_by_them():
    assert lost(stored(Doubles(3)))
    assert lost(stored(Module(inner=Doubles(3))))
    assert lost(stored(functools.partial(jnp.add, Doubles(3))))
    assert lost(stored([Doubles(0)])) is None


def test_the_difference_is_named():
    one, other = Maze(time_limit=3), Maze(walls=changed(WALLS), time_limit=3)
    path, mine, theirs = difference(stored(one), stored(other))
    assert path == ".walls"
    assert references.describe(mine) != references.describe(theirs)
    assert difference(stored(Module()), stored(Module(widths=(3, 5)))) == (".widths[1]", 4, 5)
    assert difference(stored(nn.relu), stored(nn.gelu))[0] == ""


def test_a_run_does_not_go_on_with_another_array(tmp_path):
    prx.sweep(tiny("ppo", Maze()), out=tmp_path / "x", total_steps=16, progress=False)
    other = tiny("ppo", Maze(walls=changed(WALLS)))
    with pytest.raises(
        ValueError, match=r"has env\.walls=an array float32\[50, 50\] of sha256 .* was started with an array"
    ):
        prx.resume(tmp_path / "x", arms={"ppo": other}, total_steps=32)
    with pytest.raises(ValueError, match=r"env\.walls"):
        prx.load_state(tmp_path / "x", algorithm=other)
    assert prx.load_state(tmp_path / "x").update == 1


# --- what cannot come back -------------------------------------------------------------------------------------------


def test_what_is_missing_is_named():
    settings = {k: stored(v) for k, v in tiny("ppo").settings.items()}
    for path, words in [("nowhere:Maze", "No module named 'nowhere'"), ("toys:Missing", "no attribute 'Missing'")]:
        with pytest.raises(ValueError, match=rf"env: '\w+' of module '\w+' cannot be imported here.*{words}.*arms="):
            checkpoints.remake(settings | {"env": {"import": path, "fields": {}}})
    with pytest.raises(ValueError, match=r"algorithm='mine'.*import the module that does it.*arms="):
        checkpoints.remake(settings | {"algorithm": "mine"})


@pytest.mark.parametrize(
    "value",
    [
        Opaque(WALLS),
        closes_over(WALLS),
        Module(activation=lambda x: x),
        [{"x": Opaque(1)}],
        Maze(walls=np.zeros((200, 200))),
    ],
    ids=["object", "closure", "module", "nested", "large"],
)
def test_what_cannot_be_imported_is_named_before_anything_is_made(value):
    settings = {k: stored(v) for k, v in tiny("ppo").settings.items()}
    assert lost(stored(value))
    with pytest.raises(
        ValueError, match=r"arms.*the network of one is an object that cannot be imported again \(network: "
    ):
        checkpoints.remake(settings | {"network": stored(value)})


def test_nothing_of_the_script_itself_has_an_import_path(monkeypatch):
    """In another process ``__main__`` is another module."""
    kind = Opaque
    monkeypatch.setattr(kind, "__module__", "__main__")
    assert import_path(kind) == f"{__name__}:Opaque"  # found where it is held, not where it says
    monkeypatch.delattr(__import__(__name__), "Opaque")
    monkeypatch.setattr(__import__("__main__"), "Opaque", kind, raising=False)
    assert import_path(kind) is None


def test_cycles_end():
    one = Opaque(WALLS)
    one.me, one.list = one, [one]
    assert difference(stored(one), stored(one)) is None
