"""Statistics over runs and tasks against scipy, numbers worked out by hand, and known distributions."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from datasets import sweep_like, with_dims

from purejaxrl_ext.analysis import plots, stats

SCORES = np.random.default_rng(0).normal(size=(5, 9))  # [M, S]


# --- aggregates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 8), (5, 9), (3, 10)])
def test_iqm_pools_runs_and_tasks_as_scipy_trims(shape):
    x = np.random.default_rng(1).normal(size=shape)
    np.testing.assert_allclose(stats.pooled_iqm(x), scipy.stats.trim_mean(x, 0.25, axis=None))


def test_what_is_not_finite_is_left_out_at_either_end():
    for lost in (np.nan, np.inf, -np.inf):
        x = [4.0, lost, 1.0, 2.0, 100.0, -50.0]
        assert stats.mean(x) == 57.0 / 5
        assert stats.iqm(x) == 7.0 / 3


def test_mean_median_and_optimality_gap_by_hand():
    x = [[0.0, 1.0], [2.0, 4.0], [0.5, 0.5], [10.0, 0.0]]  # means 0.5, 3, 0.5, 5
    assert stats.pooled_mean(x) == 2.25
    assert stats.task_median(x) == 1.75
    assert stats.task_median(x[:3]) == 0.5
    assert stats.optimality_gap(x) == 1.0 - np.mean([0, 1, 1, 1, 0.5, 0.5, 1, 0])
    assert stats.optimality_gap(x, target=4.0) == 4.0 - np.mean([0, 1, 2, 4, 0.5, 0.5, 4, 0])


@pytest.mark.parametrize("name", stats.AGGREGATES)
def test_aggregates_of_many_are_those_of_each(name):
    many = np.stack([SCORES, SCORES[::-1] * 2.0, SCORES + 1.0])
    of = stats.AGGREGATES[name]
    np.testing.assert_allclose(of(many), [of(x) for x in many])


def test_a_run_without_a_number_counts_in_no_aggregate():
    padded = np.concatenate([SCORES, np.full((5, 3), np.nan)], axis=1)
    for name in stats.AGGREGATES:
        np.testing.assert_allclose(stats.aggregate(padded, name).estimate, stats.aggregate(SCORES, name).estimate)


# --- bootstrap -------------------------------------------------------------------------------------------------------


def test_resamples_stay_within_their_task():
    x = np.array([[1.0, 2.0, 3.0], [10.0, np.nan, 20.0], [np.nan, np.nan, np.nan]])
    drawn = stats.resample(x, 500, np.random.default_rng(0))
    assert drawn.shape == (500, 3, 3)
    assert set(np.unique(drawn[:, 0])) == {1.0, 2.0, 3.0}
    # Two runs: two draws, each equally often.
    np.testing.assert_array_equal(np.isfinite(drawn).sum(-1), np.broadcast_to([3, 2, 0], (500, 3)))
    np.testing.assert_allclose(np.nanmean(drawn[:, 1]), 15.0, atol=0.5)
    # Tasks are drawn independently of each other.
    middle = drawn[:, 0].mean(-1), np.nanmean(drawn[:, 1], axis=-1)
    assert abs(np.corrcoef(*middle)[0, 1]) < 0.15


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    """Normal data, 3 tasks of 20 runs: the percentile bootstrap covers a little less than its level."""
    rng = np.random.default_rng(0)
    hits = []
    for i in range(300):
        got = stats.aggregate(rng.normal(size=(3, 20)), "mean", level=0.9, num_resamples=400, rng_seed=i)
        hits.append(got.low <= 0.0 <= got.high)
    assert 0.83 <= np.mean(hits) <= 0.94


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    got = stats.aggregate(SCORES, "mean", num_resamples=20_000)
    error = np.sqrt((SCORES.var(axis=1) / 9).mean() / 5)  # of a mean over tasks, stratified
    np.testing.assert_allclose((got.high - got.low) / 2, 1.96 * error, rtol=0.05)
    pooled = np.sqrt((SCORES + 100.0 * np.arange(5)[:, None]).var() / 45)
    shifted = stats.aggregate(SCORES + 100.0 * np.arange(5)[:, None], "mean", num_resamples=20_000)
    np.testing.assert_allclose(shifted.high - shifted.low, got.high - got.low, rtol=1e-6)
    assert 2 * 1.96 * pooled > 10 * (shifted.high - shifted.low)


def test_one_run_has_no_interval():
    got = stats.aggregate([[1.0], [3.0]], "mean")
    assert got.estimate == 2.0 and np.isnan([got.low, got.high]).all()


# --- profiles --------------------------------------------------------------------------------------------------------


def test_profile_by_hand():
    got = stats.performance_profile([[0.0, 1.0], [2.0, 3.0]], [-1.0, 0.0, 0.5, 2.0, 3.0])
    np.testing.assert_allclose(got.estimate, [1.0, 0.75, 0.75, 0.25, 0.0])  # above, not at
    assert (got.low <= got.estimate).all() and (got.estimate <= got.high).all()
    # All runs are above the first and none above the last, whatever is drawn.
    assert (got.low[0], got.high[0], got.low[-1], got.high[-1]) == (1.0, 1.0, 0.0, 0.0)


def test_tasks_weigh_the_same_in_a_profile_whatever_their_runs():
    got = stats.performance_profile([[1.0, 1.0, 1.0, 1.0], [0.0, np.nan, np.nan, np.nan]], [0.5])
    np.testing.assert_allclose(got.estimate, [0.5])


# --- probability of improvement --------------------------------------------------------------------------------------


def test_probability_of_improvement_is_the_mean_mann_whitney_u():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 6, (4, 7)).astype(float), rng.integers(0, 6, (4, 5)).astype(float)  # with ties
    u = [scipy.stats.mannwhitneyu(a, b, alternative="greater").statistic / 35 for a, b in zip(x, y, strict=True)]
    got = stats.probability_of_improvement(x, y)
    np.testing.assert_allclose(got.estimate, np.mean(u))
    assert got.low < got.estimate < got.high


def test_probability_of_improvement_is_antisymmetric_and_half_for_equals():
    x, y = SCORES, SCORES[:, ::-1] * 0.5 + 0.2
    forth, back = stats.probability_of_improvement(x, y), stats.probability_of_improvement(y, x)
    np.testing.assert_allclose(forth.estimate + back.estimate, 1.0)
    assert stats.probability_of_improvement(x, x).estimate == 0.5
    sure = stats.probability_of_improvement(x + 100.0, y)
    assert (sure.estimate, sure.low, sure.high) == (1.0, 1.0, 1.0)


def test_the_interval_of_probability_of_improvement_covers_the_truth():
    """Two normals a standard deviation apart: P(X > Y) = Φ(1 / √2) = 0.760."""
    rng, hits = np.random.default_rng(3), []
    for i in range(200):
        x, y = rng.normal(1.0, size=(2, 15)), rng.normal(0.0, size=(2, 15))
        got = stats.probability_of_improvement(x, y, level=0.9, num_resamples=300, rng_seed=i)
        hits.append(got.low <= scipy.stats.norm.cdf(np.sqrt(0.5)) <= got.high)
    assert 0.80 <= np.mean(hits) <= 0.96


# --- of a sweep ------------------------------------------------------------------------------------------------------


def test_tasks_of_a_sweep_are_arms_and_grid_cells():
    values = np.arange(2 * 2 * 3.0).reshape(2, 2, 3)
    ds = sweep_like(values, ["a", "b"], [("gamma", [0.9, 0.99])])
    np.testing.assert_allclose(stats.task_scores(ds, "b"), values[1])
    np.testing.assert_allclose(stats.task_scores(ds, ["b", "a"]), values[::-1].reshape(4, 3))
    got = stats.task_scores(ds, ["a", "b"], bounds=[(0.0, 10.0), (6.0, 8.0)])
    np.testing.assert_allclose(got, np.concatenate([values[0] / 10.0, (values[1] - 6.0) / 2.0]))


def test_a_diverged_run_is_left_out():
    ds = sweep_like([[1.0, 2.0, 300.0]], ["a"])
    ds["diverged_at"][0, 2] = 3.0
    np.testing.assert_array_equal(stats.task_scores(ds, "a"), [[1.0, 2.0, np.nan]])
    table = stats.aggregates(ds, num_resamples=50)
    assert table.loc[("a", "mean"), "estimate"] == 1.5
    assert table.loc[("a", "mean"), "num_runs"] == 2
    assert table.loc[("a", "mean"), "num_diverged"] == 1


def test_table_of_aggregates():
    ds = sweep_like([[1.0, 3.0], [5.0, 7.0], [0.0, 0.5]], ["ppo A", "ppo B", "dqn A"])
    table = stats.aggregates(ds, {"ppo": ["ppo A", "ppo B"], "dqn": "dqn A"}, target=6.0, num_resamples=200)
    assert table.loc[("ppo", "iqm"), "estimate"] == 4.0
    assert table.loc[("ppo", "optimality_gap"), "estimate"] == 6.0 - (1 + 3 + 5 + 6) / 4
    assert table.loc[("dqn", "median"), "estimate"] == 0.25
    assert table.index.get_level_values("method").unique().tolist() == ["ppo", "dqn"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda ds: stats.aggregate(SCORES, "mode"), "mode.*iqm"),
        (lambda ds: stats.aggregate(SCORES, level=1.0), "level"),
        (lambda ds: stats.aggregate(np.zeros((2, 2, 2))), "tasks, runs"),
        (lambda ds: stats.performance_profile(SCORES, []), "thresholds"),
        (lambda ds: stats.probability_of_improvement(SCORES, SCORES[:2]), "as many tasks"),
        (lambda ds: stats.task_scores(ds, "c"), "'c'.*'a'"),
        (lambda ds: stats.task_scores(ds, "a", "episode_retrun"), "episode_return"),
        (lambda ds: stats.task_scores(ds, "a", bounds=(1.0, 1.0)), "bounds"),
        (lambda ds: plots.improvement(ds, [("a",)]), "pairs"),
        (lambda ds: plots.improvement(ds, [("a", "c")]), "pairs='c'.*'a'"),
        (lambda ds: stats.summary(ds, "episode_retrun"), "Did you mean 'episode_return'"),
        (lambda ds: stats.summary(ds, []), "metrics"),
        (lambda ds: stats.summary(ds.isel(update=0)), "along 'update'"),
        (lambda ds: stats.summary(ds.drop_vars("env_step")), "'env_step'"),
        (lambda ds: stats.bootstrap([1.0, 2.0], num_resamples=0), "num_resamples=0"),
        (lambda ds: stats.aggregates(ds, by="epochs"), "by='epochs'.*'arm'"),
        (lambda ds: plots.profiles(sweep_like([[np.nan]], ["a"])), "metric='episode_return'"),
    ],
)
def test_bad_input_names_what_is_allowed(call, match):
    with pytest.raises(ValueError, match=match):
        call(sweep_like([[1.0, 2.0]], ["a"]))


def test_a_gap_needs_a_target():
    """Raw returns far above 1 are no solved task: there is no gap unless something says what solved is."""
    ds = sweep_like([[150.0, 156.0]], ["ppo"])
    assert "optimality_gap" not in stats.aggregates(ds, num_resamples=20).index.get_level_values("aggregate")
    by_bounds = stats.aggregates(ds, bounds=(0.0, 500.0), num_resamples=20)
    assert by_bounds.loc[("ppo", "optimality_gap"), "estimate"] == pytest.approx(1.0 - 153.0 / 500.0)
    by_target = stats.aggregates(ds, target=500.0, num_resamples=20)
    assert by_target.loc[("ppo", "optimality_gap"), "estimate"] == 500.0 - 153.0


# --- whatever the dimensions -----------------------------------------------------------------------------------------


def test_seeds_are_found_by_name():
    """After ``unstack`` seeds are no longer last; a mean over the last axis would be one over epochs."""
    scores = stats.scores(with_dims().sel(algorithm="ppo"))
    moved = scores.stack(run=("seed", "num_epochs")).unstack("run")
    assert moved.dims[-1] == "num_epochs"
    for of in (stats.mean, stats.iqm):
        np.testing.assert_allclose(of(moved).sel(num_epochs=[1, 4, 8]), [1.2, 4.2, 8.2], rtol=1e-6)
    got, want = stats.bootstrap(moved, num_resamples=200), stats.bootstrap(scores.values, num_resamples=200)
    for one, other in zip(got, want, strict=True):
        assert one.dims == ("num_epochs",)
        np.testing.assert_allclose(one, other)
    by_epochs = stats.bootstrap(moved, dim="num_epochs", num_resamples=20)[0]
    np.testing.assert_allclose(by_epochs, stats.mean(scores.values.T))
    np.testing.assert_allclose(stats.aggregate(moved, "mean").estimate, scores.values.mean(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"dim='run'.*'seed'"):
        stats.bootstrap(moved, dim="run")


@pytest.mark.parametrize(
    "order", [("seed", "update", "num_epochs", "algorithm"), ("update", "algorithm", "seed", "num_epochs")]
)
def test_no_dimension_is_known_by_its_place(order):
    ds = with_dims().isel(seed=[0, 1, 2])
    ds["diverged_at"][0, 1, 2] = 3.0
    want, got = stats.summary(ds, num_resamples=50), stats.summary(ds.transpose(*order), num_resamples=50)
    got = got.reorder_levels(want.index.names).sort_index()
    assert got.to_dict("index") == want.sort_index().to_dict("index")


def test_a_table_over_dims_has_the_arms_that_there_are():
    table = stats.summary(with_dims(learning_rate=[1e-3, 1e-2]), num_resamples=50)
    assert table.index.names == ["algorithm", "num_epochs", "learning_rate", "metric"]
    assert len(table) == 5 * 2
    assert table.loc[("pfo", 4, 1e-2, "episode_return"), "estimate"] == pytest.approx(114.2)
    assert ("pfo", 8) not in table.index.droplevel([2, 3])


def test_what_was_selected_is_still_named():
    ds = with_dims(learning_rate=[1e-3, 1e-2])
    table = stats.summary(ds.sel(algorithm="pfo", learning_rate=1e-2, seed=3), num_resamples=50)
    assert dict(zip(table.index.names, table.index[0], strict=True)) == {
        "algorithm": "pfo",
        "num_epochs": 1,
        "learning_rate": 1e-2,
        "metric": "episode_return",
    }
    assert table["estimate"].tolist() == pytest.approx([111.3, 114.3])
    dropped = ds.isel(algorithm=0, num_epochs=0, learning_rate=0, drop=True)
    assert stats.summary(dropped, num_resamples=50)["estimate"].tolist() == pytest.approx([1.2])


def test_a_dataset_without_diverged_at_has_lost_none():
    ds = sweep_like([[1.0, 3.0]], ["a"])
    for of in (stats.summary, stats.aggregates):
        alone, whole = (of(x, num_resamples=50) for x in (ds[["episode_return"]], ds))
        assert alone.to_dict() == whole.to_dict()
    assert not stats.diverged(ds[["episode_return"]]).any()
    np.testing.assert_array_equal(stats.scores(ds[["episode_return"]]), [[1.0, 3.0]])


def test_methods_are_labels_of_a_dimension_and_tasks_the_others():
    ds = with_dims()
    np.testing.assert_allclose(stats.task_scores(ds, "ppo")[:, 0], [1.0, 4.0, 8.0])
    np.testing.assert_allclose(stats.task_scores(ds, 4, by="num_epochs")[:, 0], [4.0, 14.0])
    scaled = stats.task_scores(ds, "ppo", bounds=[(0.0, 1.0), (0.0, 4.0), (0.0, 8.0)])
    np.testing.assert_allclose(scaled[:, 0], 1.0)
    table = stats.aggregates(ds, by="num_epochs", num_resamples=20)
    assert table.loc[("8", "mean"), "num_runs"] == 5  # PPO's alone
    assert table.loc[("4", "mean"), "estimate"] == pytest.approx(9.2)


# --- what is printed -------------------------------------------------------------------------------------------------


def test_a_table_prints_whole_on_80_columns():
    values = np.array([[[153.28, 148.1, 160.0]] * 2] * 2) * 1.0
    ds = sweep_like(values, ["ppo", "pfo"], [("learning_rate", [3e-4, 3e-3])])
    ds["actor_preactivation_norm"] = ds["episode_return"]
    ds["diverged_at"][0, 1, 2] = 3.0
    table = stats.summary(ds, ["episode_return", "actor_preactivation_norm"])
    said = repr(table).splitlines()
    assert max(map(len, said)) <= 92 and "…" not in repr(table) and "..." not in repr(table)
    assert any("153.8 [148.1, 160]" in line and line.rstrip().endswith("0") for line in said)
    assert "1 (seed 2)" in repr(table)
    healthy = stats.summary(ds.sel(arm="pfo"), ["actor_preactivation_norm"])
    assert max(map(len, repr(healthy).splitlines())) <= 80
    assert "mean [range]" in repr(healthy) and "diverged" not in repr(healthy)
    assert "153.8 [148.1, 160]" in table._repr_html_()
    # Still numbers.
    assert table.loc[("ppo", 3e-4, "episode_return"), "high"] == pytest.approx(160.0)
    assert table.round(1)["high"].tolist()[0] == 160.0


def test_the_header_says_what_stands_in_brackets():
    """Of three seeds a 95% bootstrap interval is the range; of four it is less."""
    for seeds, said in ((1, "mean [95% interval]"), (3, "mean [range]"), (4, "mean [95% interval]")):
        table = stats.summary(sweep_like([np.arange(float(seeds))], ["a"]))
        assert said in repr(table)
        if seeds > 1:
            assert (table["high"].item() == seeds - 1.0) == (seeds == 3)


def test_one_seed_says_so_and_no_number_too():
    table = stats.summary(sweep_like([[2.0], [np.nan]], ["a", "b"]), num_resamples=50)
    assert "2 [one run]" in repr(table) and "none" in repr(table)


def test_many_lost_seeds_are_counted_and_the_first_named():
    ds = sweep_like([np.arange(9.0)], ["a"])
    ds["diverged_at"][0, 1:] = 3.0
    table = stats.summary(ds, num_resamples=50)
    assert "8 (seed 1, 2, 3, 4, 5, …)" in repr(table)
    assert table["diverged_seeds"].item() == "1, 2, 3, 4, 5, 6, 7, 8"


def test_a_seed_counts_once_however_many_episodes_it_finished():
    """Seeds are the runs (pitfalls 17): 100 episodes of one seed do not outweigh the one episode of another."""
    dataset = sweep_like([[0.0, 10.0]], ["ppo"])
    episodes = xr.zeros_like(dataset["episode_return"]) + xr.DataArray([1.0, 100.0], dims="seed")
    dataset["num_episodes"] = episodes
    # Nor its updates without an episode.
    dataset["episode_return"] = dataset["episode_return"].where((dataset["update"] % 2 == 0) | (dataset["seed"] == 1))
    assert stats.scores(dataset, last=1.0).values.tolist() == [[0.0, 10.0]]
    row = stats.summary(dataset, last=1.0, num_resamples=100).iloc[0]
    assert (row["estimate"], row["num_seeds"]) == (5.0, 2)


def test_a_setting_is_chosen_on_some_seeds_and_reported_on_others():
    """Each arm at its own best learning rate; on the seeds that chose it, it looks better than it is (pitfalls 41)."""
    rates, truth = np.geomspace(1e-5, 1e-1, 8).tolist(), np.array([0.0, 1.0])
    noise = np.random.default_rng(0).standard_normal((2, 8, 400))
    dataset = sweep_like(truth[:, None, None] + noise, ["a", "b"], [("learning_rate", rates)])
    choosing, others = range(8), range(8, 400)
    best = stats.scores(dataset.sel(seed=choosing)).mean("seed").idxmax("learning_rate")
    assert len(set(best.values.tolist())) == 2

    def estimates(seeds):
        table = stats.summary(dataset.sel(seed=seeds, learning_rate=best), num_resamples=100)
        return table.xs("episode_return", level="metric")["estimate"].loc[["a", "b"]].to_numpy()

    assert (estimates(choosing) > truth + 0.2).all()
    np.testing.assert_allclose(estimates(others), truth, atol=0.15)
