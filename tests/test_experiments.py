"""The experiment scripts about tables run, with tiny settings, and say and draw what they measured; command lines."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import purejaxrl_ext as prx

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))


@pytest.fixture
def script(monkeypatch):
    """A script as a module; what it does to uncaught exceptions is undone."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return importlib.import_module


def picture(path):
    """A figure's mode, and how many greys it has."""
    with Image.open(path) as image:
        return image.mode, len(np.unique(np.asarray(image.convert("L"))))


@pytest.mark.thorough
def test_cliff_walking(script, tmp_path, capsys):
    cliff_walking = script("cliff_walking")
    figure = tmp_path / "new" / "cliff.png"
    cliff_walking.main(cliff_walking.Study(num_seeds=4, num_episodes=40, num_steps=4_000, figure=figure))
    said = capsys.readouterr().out
    assert "optimal return -13" in said
    lived = {m[1]: float(m[2]) for m in re.finditer(r"(.+): return as lived, last 40 episodes (-[\d.]+)", said)}
    assert lived.keys() == cliff_walking.ARMS.keys()
    assert all(-300.0 < x < -13.0 for x in lived.values())
    assert picture(figure)[1] > 10
    with pytest.raises(ValueError, match="no run finished 40 episodes"):
        cliff_walking.main(cliff_walking.Study(num_seeds=1, num_episodes=40, num_steps=50, figure=figure))


@pytest.mark.thorough
def test_estimation_study(script, tmp_path, capsys, monkeypatch):
    study = script("estimation_study")
    for name, values in {"NS": (1, 4), "LAMBDAS": (0.0, 0.9), "FINE_LAMBDAS": (0.0, 1.0), "ALPHAS": (0.1, 0.4)}.items():
        monkeypatch.setattr(study, name, values)
    figure = tmp_path / "study.png"
    study.main(study.Study(num_seeds=40, num_episodes=5, num_states=5, figure=figure))
    said = capsys.readouterr().out
    least = [float(x) for x in re.findall(r"least RMS error ([\d.]+)", said)]
    assert len(least) == 3 and all(0.05 < x < 0.6 for x in least)
    # The bias that is measured is the one in closed form.
    off = [float(x) for x in re.findall(r"within ([\d.]+) of the closed form", said)]
    assert len(off) == 2 and max(off) < 0.1
    mode, greys = picture(figure)
    assert mode == "P" and greys > 10
    study.save(study.Figure(), tmp_path / "study.pdf")
    assert (tmp_path / "study.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="num_seeds"):
        study.main(study.Study(num_seeds=0))


def test_the_table_has_every_intervention_and_counts_its_code(script, tmp_path):
    table = script("interventions_table")
    assert {name for name, entry in table.ENTRIES.items() if entry.named} == set(prx.INTERVENTIONS)
    for name, entry in table.ENTRIES.items():
        if entry.named:
            assert set(entry.off or {}) | set(entry.on) <= set(prx.INTERVENTIONS[name].hparams)
    code = tmp_path / "code.py"
    code.write_text(
        '"""Two\nlines."""\n\nX = (\n    1,\n)  # a comment\n\n\ndef f():\n    """One."""\n    # why\n    return X\n'
    )
    assert table.lines_of_code(code) == 5
    # Its own file, and the list of all.
    assert table.files_that_name(prx.INTERVENTIONS["redo"]) == 2


def test_the_table_counts_bits_and_says_who_refuses(script):
    table = script("interventions_table")
    one, other = ({"params": {"w": np.float32([1.0, x])}} for x in (2.0, np.nextafter(np.float32(2.0), 3.0)))
    assert table.bits_changed(one, one | {"more": one}) == 0
    assert table.bits_changed(one, other) == 1
    takers, refusals = table.taken_by("spo", table.ENTRIES["spo"])
    assert takers == "ppo, pfo"
    assert len(refusals) == 2 and all("PPO or PFO" in said for said in refusals)
    with pytest.raises(ValueError, match=r"only=\['l3'\] is not allowed: .*l2"):
        table.main(table.Table(only=("l3",)))


# --- command lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("1e6", 10**6), ("2.5e5", 250_000), ("1E+3", 1000), ("1_000", 1000), ("-3", -3), ("7", 7)]
)
def test_large_numbers_as_people_write_them(script, text, number):
    got = script("cli").whole_number(text)
    assert got == number and isinstance(got, int)


@pytest.mark.parametrize("text", ["1.5", "1e-3", "1.25e1", "many", "nan", "1e400"])
def test_what_is_no_whole_number_is_refused(script, text):
    with pytest.raises(ValueError, match="is no whole number"):
        script("cli").whole_number(text)


def test_every_int_of_a_command_line_may_be_written_so(script, capsys):
    cli = script("cli")
    study = cli.parse(
        script("study").Study, args=["--total-steps", "1e6", "--num-seeds", "3", "--hidden-sizes", "3.2e1", "8"]
    )
    assert (study.total_steps, study.num_seeds, study.hidden_sizes) == (1_000_000, 3, (32, 8))
    assert cli.parse(script("learning").Learning, args=["--total-steps", "5e5"]).total_steps == 500_000
    assert cli.parse(script("learning").Learning, args=[]).total_steps is None
    with pytest.raises(SystemExit):
        cli.parse(script("study").Study, args=["--total-steps", "1.5"])
    assert "'1.5' is no whole number" in capsys.readouterr().err


def test_the_tracked_tables_are_written_only_when_asked_for(script):
    assert "results" not in script("learning").Learning().results.parts


def test_a_directory_that_is_taken_advises_the_flag(script, tmp_path, monkeypatch):
    report = script("report")
    (tmp_path / "config.json").write_text("{}")

    def taken(*args, **kwargs):
        raise FileExistsError("go on with prx.resume")

    monkeypatch.setattr(report.prx, "sweep", taken)
    with pytest.raises(ValueError, match=f"--out {tmp_path}.*--resume"):
        report.trained({}, report.Report(out=tmp_path), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"--out .* choose another") as error:
        report.trained({}, report.Report(out=tmp_path), tmp_path)
    assert "--resume" not in str(error.value)
    memory = script("memory_study")
    monkeypatch.setattr(memory, "arms", lambda study, env: {})
    with pytest.raises(ValueError, match=r"--out .* is there already"):
        memory.main(memory.Study(out=tmp_path))


def test_peers_that_cannot_do_the_same_work_are_an_error(script):
    translate = script("bench_peers").translate
    same = {"num_envs": 4, "hidden_sizes": [64, 64], "gamma": 0.9}
    assert translate("purejaxrl", "ppo", same) == {"num_envs": 4}
    with pytest.raises(
        ValueError, match=r"hidden_sizes=\(32, 32\) is not allowed: purejaxrl has hidden_sizes=\(64, 64\)"
    ):
        translate("purejaxrl", "ppo", same | {"hidden_sizes": (32, 32)})
    with pytest.raises(ValueError, match="env_steps_per_update must be num_envs"):
        translate("purejaxrl", "dqn", {"num_envs": 4, "env_steps_per_update": 8})


def test_a_ratio_is_the_median_of_each_turns(script):
    row = script("benchmark").row
    compiled = {"compile": 1.0, "steps": 100, "device": "cpu", "version": "0"}
    ours = [{"seconds": s, "cpu": 1.0} for s in (1.0, 2.0, 4.0)]
    theirs = [{"seconds": s, "cpu": 3.0, "memory": 1, "compiled": 0} for s in (2.0, 8.0, 8.0)]
    line = row("peer", 2, compiled, theirs, ours, 50)
    assert (line["slower"], line["slower_cpu"], line["seconds"]) == (1.0, 1.5, 8.0)  # twice as many steps
