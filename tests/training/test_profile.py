"""--profile writes a trace of the given steps. The step is compiled once and makes no implicit transfers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop, monitor, step

CONFIG = parse(Config, tiny_run.SETTINGS | {"steps": 3})


@pytest.mark.parametrize("text", ["", "5", "0:3", "3:0", "3:", "a:b", "-1:2", "1:2:3"])
def test_invalid_profile_values_raise(text):
    with pytest.raises(ConfigError, match=rf"--profile is '{text}'; expected STEP:STEPS, .* as in 100:5"):
        monitor.Profile.parse(text)


@pytest.mark.slow
def test_trace_is_written_and_steps_outside_the_run_raise(tmp_path):
    profile = monitor.Profile.parse("2:1")
    assert loop.train(CONFIG, tmp_path / "run", profile=profile) == loop.Outcome(step=3)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    with pytest.raises(ConfigError, match=r"--profile=4:1 starts at step 4, but this run trains steps 1 to 3"):
        loop.train(CONFIG, tmp_path / "other", profile=monitor.Profile(4, 1))


def test_implicit_transfer_in_the_step_raises(tmp_path, monkeypatch):
    class Step:
        def lower(self, *_):
            return self

        def compile(self):
            return self

        def __call__(self, state, batch):
            return state, {"loss": jnp.add(state.step, np.ones(3))}

    monkeypatch.setattr(step, "jitted", lambda *_: Step())
    with pytest.raises(Exception, match=r"(?i)disallowed.*transfer"):
        loop.train(CONFIG, tmp_path / "run")


def test_the_step_is_compiled_once_in_a_new_and_in_a_resumed_run(tmp_path, caplog):
    jax.config.update("jax_log_compiles", True)  # log_compiles() would not apply to other threads
    try:
        for steps in (2, 4):
            caplog.clear()
            settings = parse(Config, tiny_run.SETTINGS | {"steps": steps})
            loop.train(settings, tmp_path / "run", extend="hold" if steps > 2 else None)
            finished = [message for message in caplog.messages if "Finished XLA compilation" in message]
            assert len([message for message in finished if "traced" in message]) == 1
    finally:
        jax.config.update("jax_log_compiles", False)
