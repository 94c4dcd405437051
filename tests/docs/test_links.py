import importlib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def links(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    yield importlib.import_module("links")
    sys.modules.pop("links")


@pytest.mark.parametrize(
    ("text", "file", "name", "expected"),
    [
        ("[a](training.md#masks)", "docs/data.md", "data.md", "[a](training.md#masks)"),
        ("[a](../CONTRIBUTING.md#style)", "docs/data.md", "data.md", "[a](contributing.md#style)"),
        ("[a](../training.md)", "docs/tutorials/own_videos.md", "tutorials/own_videos.md", "[a](../training.md)"),
        ("[a](docs/data.md)", "CONTRIBUTING.md", "contributing.md", "[a](data.md)"),
        ("[`config.py`](../jepa_jax/config.py)", "docs/data.md", "data.md", "`config.py`"),
        ("[settings](../jepa_jax/config.py)", "docs/data.md", "data.md", "settings (`jepa_jax/config.py`)"),
        ("[a](https://arxiv.org/abs/2605.17165)", "docs/data.md", "data.md", "[a](https://arxiv.org/abs/2605.17165)"),
        ("![a](sprites.png)", "docs/data.md", "data.md", "![a](sprites.png)"),
        ("[a](nowhere.md)", "docs/data.md", "data.md", "[a](nowhere.md)"),
    ],
)
def test_links_on_the_site(links, text, file, name, expected):
    assert links.rewrite(text, file, name) == expected
