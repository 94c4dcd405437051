"""The packages of jepa_jax import only from lower layers, have no import cycles and stay small."""

import ast
import collections
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "jepa_jax"

# From bottom to top: a package or module may import only from the layers before its own.
LAYERS = (
    {"settings", "progress", "pages", "pictures"},
    {"files"},
    {"config", "config_files", "preprocessing"},
    {"models", "masks", "objectives", "data"},
    {"recipes", "distributed", "weights"},
    {"run_dir"},
    {"checkpoints"},
    {"training"},
    {"evaluation", "cost_model", "parity"},
    {"inference", "cli"},
    {"show"},
    {"train", "evaluate", "prepare", "compile", "features", "finetune", "study"},
)
ENTRY_POINTS = LAYERS[-1] | {"show"}
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def modules():
    """Maps the dotted name of each module to its file."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(name):
    """The modules of jepa_jax that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jepa_jax":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found


GRAPH = {name: imports(name) for name in MODULES}


def top(name):
    """The top-level name below `jepa_jax`; empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


def imported_packages(name):
    """The top-level packages that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_every_module_has_a_layer():
    assert {top(name) for name in MODULES} - {""} == LAYER.keys()


def test_modules_import_only_from_lower_layers():
    upward = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if top(name) != top(other) and top(name) and LAYER[top(other)] >= LAYER[top(name)]
    ]
    assert not upward


def test_imports_have_no_cycles():
    done, path = set(), []

    def visit(name):
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in GRAPH[name]:
            visit(other)
        done.add(path.pop())

    for name in GRAPH:
        visit(name)


def test_evaluation_does_not_import_the_training_loop_or_step():
    for name, others in GRAPH.items():
        if top(name) == "evaluation":
            assert not others & {"jepa_jax.training.loop", "jepa_jax.training.step"}, name


def test_only_models_import_flax():
    assert {top(name) for name in MODULES if "flax" in imported_packages(name)} == {"models"}


def test_workers_do_not_import_jax():
    reached, todo = set(), ["jepa_jax.data.workers.worker_process"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += GRAPH[name]
    assert not {name for name in reached if "jax" in imported_packages(name)}


SLOW = ("jax", "grain", "orbax", "tensorflow_datasets")  # packages that take half a second or more to import


def slow_packages(module):
    """The packages in SLOW that are imported with a module."""
    code = f"import sys, {module}; print(*(name for name in {SLOW} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("name", sorted(ENTRY_POINTS))
def test_commands_parse_flags_before_slow_imports(name):
    assert not slow_packages(f"jepa_jax.{name}")


def test_training_imports_orbax_and_grain_only_when_it_uses_them():
    assert slow_packages("jepa_jax.training.loop") == {"jax"}


def test_preparing_a_dataset_does_not_import_jax():
    assert slow_packages("jepa_jax.data.preparation.build") == {"tensorflow_datasets"}


@pytest.mark.parametrize("folder", sorted({file.parent for file in MODULES.values()}), ids=lambda f: f.name)
def test_folder_has_at_most_ten_modules(folder):
    files = [file.stem for file in folder.glob("*.py") if file.name != "__init__.py"]
    if folder.name not in ("objectives", "masks"):  # one module per objective or mask
        assert len(files) <= 10, sorted(files)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_has_at_most_300_lines(name):
    if name != "jepa_jax.config":  # the whole schema in one file
        assert len(MODULES[name].read_text().splitlines()) <= 300


def test_no_two_modules_have_confusable_names():
    """For example encoder, encoders and encoding. An entry point may have the name of the package it runs, and
    several folders may define their interface in `base`.
    """
    stems = collections.defaultdict(set)
    for name, file in MODULES.items():
        last = name.rpartition(".")[2]
        if top(name) in ENTRY_POINTS or last == "base" or (file.name == "__init__.py" and file.parent == PACKAGE):
            continue
        stem = last
        for ending in ("ations", "ation", "ing", "ers", "er", "ed", "es", "s", "e"):
            if stem.endswith(ending) and len(stem) - len(ending) >= 4:
                stem = stem.removesuffix(ending)
                break
        stems[stem].add(name)
    assert not {stem: names for stem, names in stems.items() if len(names) > 1}
