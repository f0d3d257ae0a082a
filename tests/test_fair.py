"""How studies compare: who chooses and who reports, the collapse flag of datasets, and the toy of the trust region."""

import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from datasets import sweep_like

import purejaxrl_ext as prx


@pytest.fixture
def script(monkeypatch):
    """A script as a module; what it does to uncaught exceptions is undone."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return importlib.import_module


def test_the_best_cell_is_of_the_mean_over_the_seeds_that_choose(script):
    fair = script("fair")
    grid = {"learning_rate": [0.1, 0.2], "l2_coef": [0.0, 1.0, 2.0]}
    # One run at (0.2, 2) is the best of all, its mean is not; at (0.1, 2) one diverged, which counts as the worst.
    values = np.array([[[[1.0, 1.0], [4.0, 4.0], [9.0, np.nan]], [[2.0, 2.0], [5.0, 3.9], [8.0, -1.0]]]])
    ds = sweep_like(values, ["x"], list(grid.items()))
    ds["diverged_at"] = ds["diverged_at"].where(np.isfinite(values), 3.0)
    assert fair.best(ds, grid, 0.1) == {"learning_rate": 0.2, "l2_coef": 1.0}


@pytest.mark.parametrize(("since", "flags"), [(10, [True, False]), (25, [False, False])])
def test_flags_of_runs_that_ended_collapsed(script, since, flags):
    compared = script("compared")
    ds = sweep_like(np.zeros((1, 2)), ["ppo"])
    update = np.arange(20)
    gone = np.stack([update >= since, update == 10])[None]
    numbers = {"actor_rank": (1.0, 40.0), "actor_dead_units": (64.0, 3.0), "policy_variance": (1e-6, 0.1)}
    measured = np.where(update % 5 == 0, 1.0, np.nan)
    dims = ("arm", "seed", "update")
    ds = ds.assign({f"{k}_end": (dims, np.where(gone, *pair) * measured) for k, pair in numbers.items()})
    np.testing.assert_array_equal(compared.collapse_flags(ds, 64).values, [flags])


def test_excess_ratio_is_of_the_measured_updates_alone(script):
    compared = script("compared")
    ds = sweep_like(np.zeros((1, 1)), ["ppo"])
    update, dims = np.arange(20), ("arm", "seed", "update")
    measured = np.where(update % 2 == 0, 1.0, np.nan)
    last = np.where(update == 18, 3.0, 2.0)
    ds = ds.assign(
        actor_rank=(dims, measured[None, None]),
        ratio_above=(dims, (last * measured)[None, None]),
        ratio_below=(dims, (0.5 * measured)[None, None]),
    )
    np.testing.assert_allclose(compared.end_excess_ratio(ds).values, [[6.0]])


def test_the_regime_is_one_of_small_steps_and_arms_change_one_thing(script):
    fair = script("fair")
    plain, pfo = (
        fair.regime("none", "CartPole-v1").make(),
        fair.regime("pfo_all", "CartPole-v1").make(learning_rate=1e-2),
    )
    assert plain.name == "ppo" and plain.config.num_minibatches == 16 and plain.config.initializer == "fan_in"
    assert pfo.name == "pfo" and float(pfo.hparams.feature_coef) == 10.0 and float(pfo.hparams.learning_rate) == 1e-2
    assert fair.regime("shared_trunk", "CartPole-v1").make().config.shared_torso
    with pytest.raises(ValueError, match="'pof' is not allowed: one of none, pfo_last"):
        fair.regime("pof", "CartPole-v1")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_seeds": 0}, "num_seeds=0"),
        ({"choosing_seeds": 0}, "choosing_seeds=0"),
        ({"learning_rates": ()}, "learning_rates"),
        ({"last": 1.5}, "last=1.5"),
    ],
)
def test_bad_settings_of_a_comparison(script, settings, match):
    fair = script("fair")
    with pytest.raises(ValueError, match=match):
        fair.check(fair.Comparison(**settings))


@pytest.mark.thorough
def test_the_study_of_collapse_chooses_on_other_seeds_than_it_reports(script, tmp_path, capsys):
    collapse = script("collapse")
    study = collapse.Collapse(
        env="CartPole-v1", interventions=("none", "pfo_last"), few_epochs=1, many_epochs=2, learning_rates=(1e-3, 1e-2),
        num_seeds=3, choosing_seeds=2, total_steps=6 * 1024, out=tmp_path / "x",
    )  # fmt: skip
    collapse.main(study)
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "x" / "own").iterdir()} == {"none-1", "none-2", "pfo_last-2"}
    choosing, own = (prx.load(tmp_path / "x" / part / "none-2") for part in ("choose", "own"))
    assert not set(choosing["seed"].values) & set(own["seed"].values)
    assert choosing["learning_rate"].size == 2 and own.sizes["seed"] == 3
    assert said.count("| none, 2 |") == 5 and "0 of 3" in said
    assert {path.name for path in (tmp_path / "x").glob("*.png")} == {
        "curves.png", "boxes.png", "boxes_own.png", "ratio.png", "sensitivity.png",
    }  # fmt: skip
    # Once more: nothing is trained, the same is said.
    collapse.main(study)
    again = capsys.readouterr().out
    assert (
        again[again.index("CartPole-v1,") : again.rindex("tables")]
        == said[said.index("CartPole-v1,") : said.rindex("tables")]
    )


@pytest.mark.parametrize(
    ("alpha", "x", "y"), [(3.0, (1.0, 1.102), (1.0, 1.258)), (-2.0, (0.942, 1.007), (0.984, 1.134))]
)
def test_the_toy_has_the_papers_ratios(script, alpha, x, y):
    """Moalla et al. 2024, figure 5: clipping holds x while y's ratio leaves the range, and the other way round."""
    toy = script("trust_region")
    r = np.asarray(toy.ratios(alpha, jnp.array([0.515, -0.441]), 0.1, 1.5, 0.1, 20))
    np.testing.assert_allclose([r[:, 0].min(), r[:, 0].max(), r[:, 1].min(), r[:, 1].max()], [*x, *y], atol=6e-4)


def test_every_intervention_that_ships_is_an_arm_that_can_be_made(script):
    """A coefficient that an arm's grid names is a setting of its algorithm."""
    study = script("interventions")
    assert set(study.GRIDS) == set(prx.INTERVENTIONS) - {"watch"}
    settings = study.Interventions(env="CartPole-v1", num_epochs=1)
    for name in study.KNOWN:
        arm = study.arm_of(name, settings)
        algorithm = arm.make(learning_rate=1e-3, **{setting: values[0] for setting, values in arm.grid.items()})
        for setting, values in arm.grid.items():
            assert np.isclose(float(getattr(algorithm.hparams, setting)), values[0])
    with pytest.raises(ValueError, match="only='redoo' is not allowed"):
        study.arm_of("redoo", settings)


def test_sensitivity_is_at_the_best_coefficient_for_each_rate(script):
    study = script("compared")
    grid = [("learning_rate", [0.1, 0.2]), ("l2_coef", [0.0, 1.0])]
    values = np.array([[[[1.0, 3.0], [4.0, 4.0]], [[7.0, 9.0], [5.0, 6.0]]]])
    found = study.by_rate(sweep_like(values, ["x"], grid), 0.1)
    np.testing.assert_allclose(found.transpose("learning_rate", "seed").values, [[4.0, 4.0], [7.0, 9.0]])
    alone = study.by_rate(sweep_like(values[..., 0, :], ["x"], grid[:1]), 0.1)
    np.testing.assert_allclose(alone.values, [[1.0, 3.0], [7.0, 9.0]])


def test_the_features_share_of_churn(script):
    churn = script("churn")
    ds = sweep_like(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), ["ppo"])
    dims, share = ("arm", "seed", "update"), np.array([0.1, 0.3, 0.2, 0.5, 0.9])[None, :, None] * np.ones(20)
    for part in churn.PARTS:
        ds = ds.assign({f"update_{part}_churn_features": (dims, share), f"update_{part}_churn_head": (dims, 1 - share)})
    np.testing.assert_allclose(churn.share(ds, "policy").values, share)
    nothing = ds.assign({name: 0 * ds[name] for name in ds if "churn" in name})
    assert np.isnan(churn.share(nothing, "value").values).all()
    # Of 10 pairs of runs one has the higher share with the lower return.
    assert churn.predicts(churn.with_shares(ds), "policy", 0.1).startswith("τ = 0.80")


@pytest.mark.thorough
def test_the_other_studies_run(script, tmp_path, capsys):
    """With tiny settings, end to end; what they say is about the arms that there are."""
    tiny = {"env": "CartPole-v1", "learning_rates": (1e-3, 1e-2), "num_seeds": 2, "choosing_seeds": 1, "num_epochs": 1}
    tiny["total_steps"] = 6 * 1024
    interventions, churn, sparse = (script(name) for name in ("interventions", "churn", "sparse_rewards"))
    interventions.main(interventions.Interventions(**tiny, only=("none", "l2_init"), out=tmp_path / "i"))
    said = capsys.readouterr().out
    assert "Return by learning rate" in said and said.count("| l2_init |") == 5
    churn.main(churn.Churn(**tiny, interventions=("none",), out=tmp_path / "c"))
    assert "share of churn" in capsys.readouterr().out
    sparse.main(sparse.Sparse(**tiny, masked=(0.9,), interventions=("none",), out=tmp_path / "s"))
    assert "90% of rewards masked" in capsys.readouterr().out
    figures = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert {"i/sensitivity.png", "c/shares.png", "s/masked-0.9/curves.png"} <= figures


def test_returns_by_task(script):
    continual = script("continual")
    ds = sweep_like(np.zeros((2, 1)), ["ppo", "pfo"])
    ramp = np.arange(20.0)[None, None] * np.array([1.0, 2.0])[:, None, None]
    ds = ds.assign(episode_return=(("arm", "seed", "update"), ramp))
    # Updates end at steps 1 … 20: those that end at 1 … 5 are the first task's.
    found = continual.by_task(ds, 5).transpose("arm", "seed", "task").values
    np.testing.assert_allclose(found[:, 0], [[2.0, 7.0, 12.0, 17.0], [4.0, 14.0, 24.0, 34.0]])


@pytest.mark.thorough
def test_the_continual_study(script, tmp_path, capsys):
    """The oracle's parameters are fresh ones after its last task, plain PPO's are not; rewards of the return are whole."""
    continual = script("continual")
    study = continual.Continual(arms=("none", "oracle"), task_steps=2048, num_tasks=2, num_seeds=2, out=tmp_path / "x")
    continual.main(study)
    said = capsys.readouterr().out
    assert "| none | " in said and "61.8 ± 6.9" in said and "task 2" in said
    returns = prx.load(tmp_path / "x")["episode_return"].values
    assert np.nanmin(returns) > 8.0
    biases = [
        np.abs(prx.load_state(tmp_path / "x", arm=arm, seed=1).params["params"]["actor_head"]["bias"]).max()
        for arm in study.arms
    ]
    assert biases[0] > 0 and biases[1] == 0
    with pytest.raises(ValueError, match="task_steps=0 is not allowed"):
        continual.main(continual.Continual(task_steps=0))
