"""Tables and figures of a fair comparison: what the studies of collapse print, draw and keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import fair
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import distributions, panels, plots, stats
from purejaxrl_ext.representation.collapse import collapsed_since, excess_ratio

RETURN = "episode_return"
# Columns that studies choose from: heading and metric.
COLUMNS = {
    "return": RETURN,
    "excess ratio": "excess_ratio",
    "rank": "actor_rank_end",
    "dead units": "actor_dead_units_end",
    "norm": "actor_preactivation_norm_end",
    "policy variance": "policy_variance_end",
    "low ratio": "ratio_below",
    "entropy": "entropy",
}
REPRESENTATION = {"rank": "actor_rank", "dead units": "actor_dead_units", "norm": "actor_preactivation_norm"}


@dataclass(frozen=True)
class Told:
    """What a study says besides its numbers.

    Attributes:
        env: of what environment.
        plain: the arm with which all are compared.
        columns: of the tables; see ``COLUMNS``.
    """

    env: str
    plain: str
    columns: Mapping[str, str]


def collapse_flags(dataset: xr.Dataset, width: int = fair.WIDTH) -> xr.DataArray:
    """Which runs ended collapsed (see ``representation.collapse``): bool over all dimensions but ``update``."""
    of = [dataset[f"{name}_end"] for name in ("actor_rank", "actor_dead_units", "policy_variance")]
    of = xr.broadcast(*of)
    flags = np.isfinite(collapsed_since(*(x.transpose(..., "update").values for x in of), width=width))
    return xr.zeros_like(of[0].isel(update=0, drop=True).transpose(...), bool).copy(data=flags)


def end_excess_ratio(dataset: xr.Dataset) -> xr.DataArray:
    """Each run's excess ratio at the end of training, over the updates at which it was measured."""
    above, below = (dataset[name].transpose(..., "update") for name in ("ratio_above", "ratio_below"))
    measured = above["update"].values[np.isfinite(dataset["actor_rank"]).any([d for d in above.dims if d != "update"])]
    pair = [x.sel(update=measured).values for x in (above, below)]
    attrs = {"long_name": "excess ratio", "units": "1"}
    return above.isel(update=0, drop=True).copy(data=excess_ratio(*pair, least=5)).assign_attrs(attrs)


def interval_text(values: np.ndarray, center: str = "iqm", digits: int = 3) -> str:
    """``estimate [low, high]`` over seeds, the last axis; "–" where no run has a number."""
    middle, low, high = (float(x) for x in stats.bootstrap(np.asarray(values, float), center))
    if not np.isfinite(middle):
        return "–"
    return f"{middle:.{digits}g} [{low:.{digits}g}, {high:.{digits}g}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its first column to the left."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def scores(dataset: xr.Dataset, metric: str, last: float) -> xr.DataArray:
    """Each run's number at the end of training ``[arm, seed]``."""
    return end_excess_ratio(dataset) if metric == "excess_ratio" else stats.scores(dataset, metric, last)


def rows(ds: xr.Dataset, choice: Mapping[str, Mapping[str, float]], told: Told, last: float) -> list[list[str]]:
    """Of each arm what it chose, how many runs collapsed, and the columns."""
    flags = collapse_flags(ds)
    numbers = [scores(ds, metric, last) for metric in told.columns.values()]
    found = []
    for name, settings in choice.items():
        chose = ", ".join(f"{value:g}" for value in settings.values())
        runs = f"{int(flags.sel(arm=name).sum())} of {flags.sizes['seed']}"
        found.append([name, chose, runs, *(interval_text(x.sel(arm=name).values) for x in numbers)])
    return found


def kendall_rows(ds: xr.Dataset) -> list[list[str]]:
    """Kendall's τ of the low ratio along the runs of each arm against rank, dead units and norm."""
    taus = [distributions.kendall(ds, "ratio_below", metric) for metric in REPRESENTATION.values()]
    names = [str(arm) for arm in ds["arm"].values]
    return [[name, *(interval_text(tau.sel(arm=name).values, "mean", 2) for tau in taus)] for name in names]


def improves(ds: xr.Dataset, x: str, y: str, last: float) -> str:
    """Probability that a run of ``x`` has a higher return at the end than one of ``y``."""
    if x == y:
        return "–"
    pair = (stats.task_scores(ds, name, last=last) for name in (x, y))
    middle, low, high = stats.probability_of_improvement(*pair)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def by_rate(choosing: xr.Dataset, last: float) -> xr.DataArray:
    """The return ``[learning_rate, seed]`` of the runs that chose, at the best coefficient for each rate."""
    scores = fair.returns(choosing, last)
    others = [d for d in scores.dims if d not in ("learning_rate", "seed")]
    if not others:
        return scores.transpose("learning_rate", "seed")
    flat = scores.stack(coefficient=others).transpose("learning_rate", "coefficient", "seed")
    best = flat.mean("seed").argmax("coefficient")
    return flat.isel(coefficient=best).transpose("learning_rate", "seed")


def by_rates(compared: fair.Compared, last: float) -> dict[str, xr.DataArray]:
    """:func:`by_rate` of each arm."""
    return {name: by_rate(ds, last) for name, ds in compared.choosing.items()}


def rate_rows(rates: Mapping[str, xr.DataArray]) -> list[list[str]]:
    """Each arm's return by learning rate."""
    return [[name, *(f"{x:.3g}" for x in values.mean("seed").values)] for name, values in rates.items()]


def sensitivity(rates: Mapping[str, xr.DataArray]) -> Figure:
    """A curve of each arm's return over learning rates."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    panel = figure.subplots()
    for i, ((name, values), color) in enumerate(zip(rates.items(), panels.colors(len(rates)), strict=False)):
        style = {"color": color, "linestyle": panels.LINES[i % len(panels.LINES)], "label": name}
        panel.plot(
            values["learning_rate"], values.mean("seed"), marker=panels.MARKERS[i % len(panels.MARKERS)], **style
        )
    panel.set_xscale("log")
    panel.set_xlabel("learning rate")
    panel.set_ylabel("return at the end, mean over the seeds that chose")
    panels.dress(panel)
    return panels.finish(figure, panel)


def tables(study: fair.Comparison, compared: fair.Compared, told: Told) -> str:
    """Every arm at its own choice, and at the highest learning rate; who improves on the plain arm; Kendall's τ."""
    own, high, top = compared.own, compared.high, max(study.learning_rates)
    at_top = {name: {**settings, "learning_rate": top} for name, settings in compared.choice.items()}
    header = ("arm", "chose", "collapsed", *told.columns)
    better = [[name, *(improves(ds, name, told.plain, study.last) for ds in (own, high))] for name in compared.choice]
    rates = [f"{rate:g}" for rate in study.learning_rates]
    paragraphs = [
        f"{told.env}, {int(np.nanmax(own['env_step'])):,} environment steps, {own.sizes['seed']} seeds: interquartile means "
        f"[95% bootstrap intervals] of the last {study.last:.0%} of training.\n",
        f"Each arm at the settings that {study.choosing_seeds} other seeds chose (the learning rate of {', '.join(rates)}, then "
        "its own):\n",
        markdown(header, rows(own, compared.choice, told, study.last)),
        f"All at the highest learning rate, {top:g}:\n",
        markdown(header, rows(high, at_top, told, study.last)),
        f"Probability that a run has a higher return than one of {told.plain}:\n",
        markdown(("arm", "at its own settings", f"at {top:g}"), better),
        f"Kendall's τ of the low ratio along each run at {top:g}, mean over runs (Moalla et al. claim it where the representation "
        "is poor):\n",
        markdown(("arm", *REPRESENTATION), kendall_rows(high)),
        "Return by learning rate, at the best coefficient for it, mean over the seeds that chose:\n",
        markdown(("arm", *rates), rate_rows(by_rates(compared, study.last))),
    ]
    return "\n".join(paragraphs)


def figures(study: fair.Comparison, compared: fair.Compared, told: Told) -> dict[str, Figure]:
    """Curves, boxes by arm, and the low ratio against the rank, at the highest rate; boxes at the chosen ones too."""
    own, high = (ds.assign(excess_ratio=end_excess_ratio(ds)) for ds in (compared.own, compared.high))
    boxed = [metric for metric in told.columns.values() if metric not in ("entropy", "policy_variance_end")]
    drawn = [metric for metric in told.columns.values() if metric not in ("entropy", "excess_ratio")]
    return {
        "curves": plots.curves(compared.high, drawn, center="iqm", smooth=min(1.0, 20.0 / high.sizes["update"])),
        "boxes": distributions.boxes(high, boxed, last=study.last),
        "boxes_own": distributions.boxes(own, boxed, last=study.last),
        "ratio": distributions.scatter(compared.high, "actor_rank", "ratio_below"),
        "sensitivity": sensitivity(by_rates(compared, study.last)),
    }


def report(
    arms: Mapping[str, fair.Arm],
    study: fair.Comparison,
    told: Told,
    more: Callable[[fair.Compared], tuple[str, dict[str, Figure]]] = lambda _: ("", {}),
) -> None:
    """Compare, then print the tables and keep them with the figures in ``study.out``.

    Args:
        arms: what is compared.
        study: how.
        told: what is said of it.
        more: further text, and figures by name.
    """
    began = time.perf_counter()
    compared = fair.compare(arms, study)
    text, drawn = more(compared)
    text = tables(study, compared, told) + text
    (study.out / "tables.md").write_text(text)
    for name, figure in (figures(study, compared, told) | drawn).items():
        figure.savefig(study.out / f"{name}.png", dpi=plots.FILE_DPI)
    print(text)
    print(f"tables and figures in {study.out}; took {time.perf_counter() - began:.0f} s")
