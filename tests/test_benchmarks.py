"""benchmarks/all.py reruns benchmarks and replaces their tables in a page."""

import importlib.util
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
PAGE = """# Page

Before.

<!-- benchmarks/good.py -->

old good

<!-- end -->

Between.

<!-- benchmarks/bad.py -->

old bad

<!-- end -->

After.
"""
GOOD = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import table
table.progress("not in the page")
table.show(("a", "b"), [(1, 2), (3, 4)], "A machine.")
"""
RESULT = "A machine.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"


@pytest.fixture(scope="module")
def everything():
    """The module benchmarks/all.py."""
    spec = importlib.util.spec_from_file_location("benchmarks_all", FOLDER / "all.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def rerun(everything, tmp_path, capsys):
    """rerun(name=program, …): runs these benchmarks. Returns the exit code, the page and the output."""

    def run(videos=None, options=None, **programs):
        for name, program in programs.items():
            (tmp_path / f"{name}.py").write_text(program)
        page = tmp_path / "page.md"
        page.write_text(PAGE)
        benchmarks = [everything.Benchmark(name, 1, **(options or {}).get(name, {})) for name in programs]
        code = everything.rerun(benchmarks, page, videos, tmp_path)
        return code, page.read_text(), capsys.readouterr().out

    return run


def test_results_replace_what_is_between_the_markers(rerun):
    code, page, output = rerun(good=GOOD)
    assert code == 0
    assert page == PAGE.replace("old good", RESULT)
    assert "good (1 of 1): about 1 min" in output
    assert "All results are in" in output


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print('| a |\\n|---|'); raise SystemExit(3)", "bad is as before: it failed with exit code 3"),
        ("print('no result')", "bad is as before: it printed no table."),
    ],
)
def test_failing_benchmark_keeps_its_table_and_the_others_run(rerun, program, message):
    code, page, output = rerun(bad=program, good=GOOD)
    assert code == 1
    assert page == PAGE.replace("old good", RESULT)
    assert message in output


def test_benchmark_without_its_videos_is_named_with_the_flag(rerun, tmp_path):
    needs = {"bad": {"videos": True}}
    code, page, output = rerun(bad="raise SystemExit(1)", options=needs)
    assert (code, page) == (0, PAGE)
    assert "bad is as before: it needs a folder of videos; use --videos=FOLDER." in output
    code, page, _ = rerun(
        bad="import sys\nprint('|---|', sys.argv[1:])", options={"bad": {"videos": True, "flags": ("--rounds=2",)}},
        videos=tmp_path,
    )  # fmt: skip
    assert (code, page) == (0, PAGE.replace("old bad", f"|---| {[str(tmp_path), '--rounds=2']}"))


def test_benchmark_that_the_page_does_not_have_is_an_error(rerun, tmp_path):
    code, page, output = rerun(other=f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert (code, page) == (1, PAGE)
    assert "other is as before: the page must have the line <!-- benchmarks/other.py --> once" in output
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("page", ["<!-- benchmarks/a.py -->\n", "<!-- benchmarks/a.py -->\n" + PAGE])
def test_marker_without_an_end_does_not_replace_the_text_after_it(everything, page):
    with pytest.raises(everything.BenchmarkError, match="followed by <!-- end -->"):
        everything.replaced(page, "a", "new")


def test_unknown_name_is_reported_with_the_nearest(everything, capsys):
    with pytest.raises(SystemExit) as exit:
        everything.main(["--only=sprites,stepp"])
    assert exit.value.code == 2
    assert "unknown benchmark 'stepp'. Did you mean 'step'? Known: step, objectives, " in capsys.readouterr().err


def test_every_benchmark_is_in_the_list_and_has_its_place_in_the_page(everything):
    programs = {file.stem for file in FOLDER.glob("*.py") if "\ndef main(" in file.read_text()}
    names = [benchmark.name for benchmark in everything.BENCHMARKS]
    assert sorted(names) == sorted(programs - {"all", "sprite_picture"})  # the picture shows data, no measurement
    for name in names:
        everything.replaced(everything.PAGE.read_text(), name, "new")
