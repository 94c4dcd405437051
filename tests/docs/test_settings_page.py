import dataclasses
import importlib
import pathlib
import sys
from typing import Literal

import pytest

from jepa_jax.config import Config
from jepa_jax.settings import at_least, share

BUILD = pathlib.Path(__file__).parents[2] / "docs" / "hooks"


@pytest.fixture
def settings_page(monkeypatch):
    monkeypatch.syspath_prepend(str(BUILD))
    yield importlib.import_module("settings_page")
    sys.modules.pop("settings_page")


@dataclasses.dataclass(frozen=True)
class Inner:
    """The inner group."""

    share: float = 0.5

    def __post_init__(self) -> None:
        share(self, "share")


@dataclasses.dataclass(frozen=True)
class Outer(Inner):
    """The outer group.

    It has a | in it.
    """

    steps: int = 3  # how many
    # Above it,
    # on two lines.
    mode: Literal["a", "b"] = "a"  # and beside it
    plain: int | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)

    def __post_init__(self) -> None:
        at_least(self, 1, "steps")


def test_settings_have_comments_defaults_and_ranges(settings_page):
    found = {s.name: (s.type, s.default, s.range, s.text, s.group) for s in settings_page.settings(Outer)}
    assert found == {
        "share": ("`float`", "`0.5`", "0 to 1", "", None),
        "steps": ("`int`", "`3`", "≥ 1", "how many", None),
        "mode": ("`a or b`", "`'a'`", "", "Above it, on two lines. and beside it", None),
        "plain": ("`int \\| None`", "`None`", "", "", None),
        "inner": ("`Inner`", "`Inner(share=0.5)`", "", "", Inner),
    }
    assert [path for path, _ in settings_page.groups(Outer, "config")] == ["config", "config.inner"]


def test_page_has_every_setting_of_training(settings_page):
    page = settings_page.page()
    for path, cls in settings_page.groups(Config, "config"):
        assert f"### `{path}` " in page
        for field in dataclasses.fields(cls):
            assert f"`{field.name}`" in page or f".{field.name}`" in page
    assert "### `config.objectives.factorization_static`" in page
