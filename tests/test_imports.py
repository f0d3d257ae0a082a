"""What a first sweep waits for: heavy packages are imported by what uses them."""

import subprocess
import sys

LATER = ("brax", "distrax", "flax.nnx", "matplotlib.pyplot", "orbax.checkpoint", "scipy.stats", "seaborn", "zarr")


def test_an_algorithm_is_made_without_what_draws_saves_or_is_of_others():
    code = f"""
import sys
import purejaxrl_ext as prx
prx.make("ppo", "CartPole-v1")
print([name for name in {LATER!r} if name in sys.modules])
import matplotlib.pyplot, seaborn  # what stood in for them is gone
print(callable(matplotlib.pyplot.figure), callable(seaborn.lineplot))
import gymnax.environments.misc.pong as pong
print(callable(pong.plt.figure))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines() == ["[]", "True True", "True"], done.stderr
