"""--profile writes a trace of the given steps. The training step makes no implicit transfers."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop, step

CONFIG = parse(Config, tiny_run.SETTINGS | {"steps": 3})


@pytest.mark.parametrize("text", ["", "5", "0:3", "3:0", "3:", "a:b", "-1:2", "1:2:3"])
def test_invalid_profile_values_raise(text):
    with pytest.raises(ConfigError, match=rf"--profile is '{text}'; expected STEP:STEPS, .* as in 100:5"):
        loop.Profile.parse(text)


@pytest.mark.slow
def test_trace_is_written_and_steps_outside_the_run_raise(tmp_path):
    profile = loop.Profile.parse("2:1")
    assert loop.train(CONFIG, tmp_path / "run", profile=profile) == loop.Outcome(step=3)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    with pytest.raises(ConfigError, match=r"--profile=4:1 starts at step 4, but this run trains steps 1 to 3"):
        loop.train(CONFIG, tmp_path / "other", profile=loop.Profile(4, 1))


def test_implicit_transfer_in_the_step_raises(tmp_path, monkeypatch):
    def jitted(*_):
        return lambda state, batch: (state, {"loss": jnp.add(state.step, np.ones(3))})

    monkeypatch.setattr(step, "jitted", jitted)
    with pytest.raises(Exception, match=r"(?i)disallowed.*transfer"):
        loop.train(CONFIG, tmp_path / "run")
