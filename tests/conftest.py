"""Settings of every test: no silent broadcasting, and warnings are errors."""

import purejaxrl_ext  # noqa: F401, I001  (before JAX's first computation: it makes each core a device)

import gc

import jax
import jax.monitoring
import pytest

from purejaxrl_ext.sweeps import program

jax.config.update("jax_numpy_rank_promotion", "raise")

# Warnings of other packages, each by name: what is not here fails a test.
THIRD_PARTY = (
    "ignore::DeprecationWarning:brax.*",
    "ignore::DeprecationWarning:distrax.*",
    "ignore::DeprecationWarning:flax.*",
    "ignore::DeprecationWarning:gymnax.*",
    "ignore::DeprecationWarning:gymnasium.*",
    "ignore::DeprecationWarning:gym.*",
    "ignore::DeprecationWarning:jaxopt.*",
    "ignore::DeprecationWarning:mujoco.*",
    "ignore::DeprecationWarning:orbax.*",
    "ignore::DeprecationWarning:tensorflow_probability.*",
    "ignore::DeprecationWarning:tensorstore.*",
    "ignore::UserWarning:orbax.*",
    "ignore:Brax System, piplines and environments are not actively being maintained:UserWarning",
    "ignore:Brax:DeprecationWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    for line in THIRD_PARTY:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Each compiled program holds memory maps, of which a process may have 65,530: the whole suite's are more."""
    yield
    program.program.cache_clear()
    jax.clear_caches()
    gc.collect()


_COMPILED: list[str] = []


def _listen(event: str, _seconds: float, **_: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)


@pytest.fixture
def compilations() -> list[str]:
    """One entry per program that XLA compiles (or fetches from the disk cache) during the test."""
    jax.random.key(0)  # itself a small program
    _COMPILED.clear()
    return _COMPILED
