"""Boxes, scatter and Kendall's τ of single runs, from datasets worked out by hand."""

import numpy as np
import pytest
import xarray as xr
from datasets import sweep_like

from purejaxrl_ext.analysis import distributions


def along(rank, ratio):
    """Two arms of one seed, whose metrics along updates are given ``[arm, update]``."""
    ds = sweep_like(np.zeros((2, 1)), ["ppo", "pfo"]).isel(update=slice(len(rank[0])))
    shape = ("arm", "seed", "update")
    return ds.assign(rank=(shape, np.asarray(rank)[:, None]), ratio=(shape, np.asarray(ratio)[:, None]))


def test_kendall_is_of_the_updates_at_which_both_were_measured():
    up, nan = np.arange(8.0), np.nan
    broken = np.where(up == 3, nan, up)
    ds = along([up, broken], [-up, np.where(up == 5, nan, up**2)])
    np.testing.assert_allclose(distributions.kendall(ds, "rank", "ratio").values[:, 0], [-1.0, 1.0])
    # By hand: of the 10 pairs of 5 points 7 agree and 3 do not.
    ds = along([np.arange(5.0)] * 2, [[2.0, 0.0, 1.0, 4.0, 3.0]] * 2)
    np.testing.assert_allclose(distributions.kendall(ds, "rank", "ratio").values[:, 0], 0.4)


def test_kendall_of_too_little_is_no_number():
    up = np.arange(8.0)
    ds = along([up, np.where(up < 4, up, np.nan)], [np.ones(8), up])
    assert np.isnan(distributions.kendall(ds, "rank", "ratio").values).all()
    with pytest.raises(ValueError, match="ratios"):
        distributions.kendall(ds, "rank", "ratios")


def test_a_box_is_the_quartiles_of_its_runs(tmp_path):
    scores = np.array([[1.0, 2.0, 3.0, 4.0, 200.0], [10.0, 20.0, 30.0, 40.0, np.nan]])
    ds = sweep_like(scores, ["ppo", "pfo"])
    ds = ds.assign(excess=xr.DataArray(scores * 1000, dims=("arm", "seed")))
    figure = distributions.boxes(ds, ["episode_return", "excess"], path=tmp_path / "boxes.png")
    first, second = figure.axes
    assert [t.get_text() for t in first.get_yticklabels()] == ["ppo", "pfo"]
    medians = [line.get_xdata() for line in first.lines if line.get_color() == "#D55E00"]
    np.testing.assert_allclose([x[0] for x in medians], [3.0, 25.0])
    points = [line.get_xdata() for line in first.lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose(points[1], [10.0, 20.0, 30.0, 40.0])
    assert second.get_xscale() == "log" and second.get_xlim()[1] > 1e5
    assert (tmp_path / "boxes.png").stat().st_size > 1000


def test_scatter_has_a_point_per_update_and_says_tau():
    up = np.arange(8.0)
    figure = distributions.scatter(along([up, up], [-up, up]), "rank", "ratio")
    (panel,) = figure.axes
    assert [line.get_label() for line in panel.lines] == ["ppo, τ = -1.00", "pfo, τ = 1.00"]
    np.testing.assert_allclose(panel.lines[0].get_xydata(), np.stack([up, -up], 1))
