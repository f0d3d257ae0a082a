"""Figures: what they draw, what their axes, titles and legends say, over whatever dimensions."""

import numpy as np
import pytest
from datasets import sweep_like, with_dims
from matplotlib.colors import to_hex

from purejaxrl_ext.analysis import plots, stats


def drawn(figure, panel=0):
    """x and y of each line with a name."""
    handles, labels = figure.axes[panel].get_legend_handles_labels()
    return {name: np.array(getattr(h, "lines", [h])[0].get_data()) for h, name in zip(handles, labels, strict=True)}


# --- curves ----------------------------------------------------------------------------------------------------------


def test_curves_have_a_line_for_every_arm_and_cell_that_there_is(tmp_path):
    figure = plots.curves(with_dims(learning_rate=[1e-3, 1e-2]), path=tmp_path / "x.png")
    lines = drawn(figure)
    assert len(lines) == 5 * 2
    x, y = lines["pfo, num_epochs=4, learning_rate=0.01"]
    np.testing.assert_array_equal(x, np.arange(1, 21))
    np.testing.assert_allclose(y, 114.2, rtol=1e-6)
    assert (tmp_path / "x.png").stat().st_size > 5000


@pytest.mark.parametrize("by", ["algorithm", "num_epochs", None])
def test_colours_tell_any_dimension_apart(by):
    """A dimension of names too, beside which any other is a number."""
    figure = plots.curves(with_dims(), by=by)
    colours = {h.get_label(): to_hex(h.get_color()) for h in figure.axes[0].get_lines()}
    assert set(colours) == {
        "ppo, num_epochs=1",
        "ppo, num_epochs=4",
        "ppo, num_epochs=8",
        "pfo, num_epochs=1",
        "pfo, num_epochs=4",
    }
    assert len(set(colours.values())) == (3 if by == "num_epochs" else 2)
    same = [c for name, c in colours.items() if name.endswith("=4")]
    assert (len(set(same)) == 1) == (by == "num_epochs")


def test_curves_of_a_metric_alone_and_of_what_was_selected():
    ds = with_dims()
    assert list(drawn(plots.curves(ds[["episode_return"]].sel(algorithm="ppo")))) == [
        f"num_epochs={n}" for n in (1, 4, 8)
    ]
    alone = plots.curves(ds.isel(algorithm=0, num_epochs=0, seed=0, drop=True))
    assert len(alone.axes[0].get_lines()) == 1
    assert alone.get_suptitle() == "one seed"


def test_a_run_is_drawn_until_it_diverged_and_counted():
    ds = sweep_like([[1.0, 5.0]], ["a"])
    ds["diverged_at"][0, 1] = 10.0
    ((name, (_, y)),) = drawn(plots.curves(ds)).items()
    assert name == "a (1 of 2 diverged)"
    np.testing.assert_allclose(y, [3.0] * 10 + [1.0] * 10)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "one seed"),
        (2, "mean over 2 seeds and their range (too few for an interval)"),
        (3, "mean over 3 seeds and their range (too few for an interval)"),
        (5, "mean over 5 seeds, 95% bootstrap interval"),
    ],
)
def test_the_title_says_what_the_band_is_and_of_which_environment(seeds, said):
    """Of two or three seeds a percentile interval is the range: all lowest is drawn with probability 1/4 or 1/27."""
    ds = with_dims().isel(seed=slice(seeds)).assign_attrs(env="CartPole-v1")
    for figure in (plots.curves(ds), plots.against(ds, "num_epochs")):
        assert figure.get_suptitle().startswith("CartPole-v1: ") and said in figure.get_suptitle()
    if 1 < seeds <= 3:
        _, low, high = stats.bootstrap(stats.scores(ds).sel(algorithm="ppo", num_epochs=4))
        assert (low, high) == pytest.approx((4.0, 4.0 + (seeds - 1) / 10))
    assert plots.profiles(ds, num_resamples=20).get_suptitle().startswith("CartPole-v1: ")


def test_axes_say_what_the_dataset_says():
    ds = with_dims()
    ds["episode_return"].attrs = {"long_name": "mean return of the episodes that ended", "units": "reward"}
    ds["loss"] = ds["episode_return"].assign_attrs(long_name="loss", units="1")
    ds["num_epochs"].attrs = {"long_name": "epochs of an update"}
    figure = plots.curves(ds, ["episode_return", "loss"])
    said = [panel.get_ylabel().replace("\n", " ") for panel in figure.axes]
    assert said == ["mean return of the episodes that ended (reward)", "loss"]
    assert plots.against(ds, "num_epochs").axes[0].get_xlabel() == "epochs of an update"
    assert plots.label("actor_rank_end") == "PCA rank of the actor's features, after the update's epochs (dimensions)"


def test_a_long_legend_is_inside_the_figure():
    figure = plots.curves(with_dims(learning_rate=[1e-4, 1e-3, 1e-2]))
    figure.canvas.draw()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= 0 and box.x1 <= whole.x1 and box.y0 >= 0
    assert figure.axes[0].get_window_extent().height > 150


# --- against ---------------------------------------------------------------------------------------------------------


def test_against_a_number(tmp_path):
    ds = with_dims()
    figure = plots.against(ds, x="num_epochs", metric="episode_return", path=tmp_path / "x.png")
    lines = drawn(figure)
    np.testing.assert_allclose(lines["ppo"], [[1, 4, 8], [1.2, 4.2, 8.2]], rtol=1e-6)
    np.testing.assert_allclose(lines["pfo"], [[1, 4], [11.2, 14.2]], rtol=1e-6)
    (panel,) = figure.axes
    assert [t.get_text() for t in panel.get_xticklabels()] == ["1", "4", "8"]
    assert panel.get_xscale() == "linear"
    # The bars are the bootstrap intervals over seeds.
    _, low, high = stats.bootstrap(stats.scores(ds).sel(algorithm="ppo", num_epochs=4))
    bars = panel.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bars[1][:, 1], [low, high], rtol=1e-6)
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_against_names_draws_points_beside_each_other():
    figure = plots.against(with_dims(), x="algorithm", by="num_epochs")
    (panel,) = figure.axes
    assert [t.get_text() for t in panel.get_xticklabels()] == ["ppo", "pfo"]
    lines = drawn(figure)
    np.testing.assert_allclose(lines["num_epochs=1"][1], [1.2, 11.2], rtol=1e-6)
    np.testing.assert_allclose(lines["num_epochs=8"][1], [8.2], rtol=1e-6)  # PFO has no such arm
    places = [x for name, (x, _) in lines.items() if name != "num_epochs=8"]
    assert (np.abs(places[0] - places[1]) > 0.05).all()
    assert {h.lines[0].get_linestyle() for h in panel.containers} == {"None"}


def test_against_a_swept_setting_is_logarithmic_where_it_spans_more_than_ten():
    ds = with_dims(learning_rate=[1e-4, 1e-2])
    (panel,) = plots.against(ds.sel(algorithm="ppo", num_epochs=4), "learning_rate").axes
    assert panel.get_xscale() == "log"
    assert [t.get_text() for t in panel.get_xticklabels()] == ["0.0001", "0.01"]


def test_against_leaves_diverged_runs_out():
    ds = with_dims()
    ds["diverged_at"][0, 1, 4] = 2.0
    lines = drawn(plots.against(ds, "num_epochs"))
    np.testing.assert_allclose(lines["ppo (1 of 15 diverged)"][1], [1.2, 4.15, 8.2], rtol=1e-6)


# --- many runs -------------------------------------------------------------------------------------------------------


def test_profile_figure(tmp_path):
    ds = sweep_like([[1.0, 3.0, 4.0], [5.0, 7.0, 6.0]], ["ppo", "pfo"])
    figure = plots.profiles(ds, path=tmp_path / "profile.png", num_resamples=100)
    (panel,) = figure.axes
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert set(lines) == {"ppo", "pfo"}
    x, y = lines["ppo"].get_data()
    assert (y[0], y[-1]) == (1.0, 0.0) and (np.diff(y) <= 0).all()
    assert y[np.searchsorted(x, 2.0)] == pytest.approx(2 / 3)
    assert (tmp_path / "profile.png").stat().st_size > 5000


def test_improvement_figure(tmp_path):
    ds = sweep_like([[1.0, 3.0, 4.0], [5.0, 7.0, 6.0], [0.0, 3.5, 9.0]], ["ppo", "pfo", "dqn"])
    figure = plots.improvement(ds, [("pfo", "ppo"), ("dqn", "ppo")], path=tmp_path / "p.png", num_resamples=100)
    (panel,) = figure.axes
    shown = [t.get_text() for t in panel.get_yticklabels()]
    assert shown == ["pfo > ppo", "dqn > ppo"]
    points = [line.get_xdata()[0] for line in panel.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [1.0, 5 / 9])
    assert to_hex(panel.get_lines()[0].get_color()) == plots.COLORS[0].lower()


def test_profiles_and_improvement_over_dims():
    ds = with_dims().isel(num_epochs=[0, 1])
    assert set(drawn(plots.profiles(ds, num_resamples=20))) == {"ppo", "pfo"}
    assert set(drawn(plots.profiles(ds, by="num_epochs", num_resamples=20))) == {"1", "4"}
    (panel,) = plots.improvement(ds, [("pfo", "ppo")], num_resamples=20).axes
    assert panel.get_lines()[0].get_xdata()[0] == 1.0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda ds: plots.curves(ds, "episode_retrun"), "Did you mean 'episode_return'"),
        (lambda ds: plots.curves(ds, []), "metrics"),
        (lambda ds: plots.curves(ds, by="seed"), "by='seed'.*'algorithm', 'num_epochs'"),
        (lambda ds: plots.curves(ds, center="median"), "center='median'"),
        (lambda ds: plots.curves(ds, interval="std"), "interval='std'"),
        (lambda ds: plots.curves(ds, smooth=0.0), "smooth"),
        (lambda ds: plots.against(ds, "seed"), "x='seed'.*'num_epochs'"),
        (lambda ds: plots.against(ds, "num_epochs", by="num_epochs"), "by='num_epochs'.*'algorithm'"),
        (lambda ds: plots.against(ds, "num_epochs", "loss"), "unknown metric 'loss'"),
    ],
)
def test_bad_input_names_what_is_allowed(call, match):
    with pytest.raises(ValueError, match=match):
        call(with_dims())
