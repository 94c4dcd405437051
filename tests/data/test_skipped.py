import json

import pytest

from jepa_jax.data import faults, skipped_files

PATHS = tuple(f"{k}.mp4" for k in range(10))


def reader(bad):
    def read(item):
        path = PATHS[item]
        if path in bad:
            raise faults.DecodeError(path, "broken")
        return path

    return read


def skip(item, source="a"):
    return skipped_files.Skip(source, item, f"/x/{item}.mp4", "broken")


def test_next_decodable_item_is_the_replacement():
    read = reader({"3.mp4", "4.mp4", "9.mp4"})
    find = lambda item: skipped_files.first_decodable("a", len(PATHS), item, read, 0.5)  # noqa: E731
    assert find(2) == (2, "2.mp4", ())
    assert find(3) == (5, "5.mp4", (("a", 3, "3.mp4", "broken"), ("a", 4, "4.mp4", "broken")))
    assert find(9) == (0, "0.mp4", (("a", 9, "9.mp4", "broken"),))


def test_search_ends_once_the_skip_limit_is_exceeded():
    _, clip, skips = skipped_files.first_decodable("a", len(PATHS), 0, reader(set(PATHS)), 0.25)
    assert clip is None
    assert len(skips) == 3
    with pytest.raises(skipped_files.TooManySkippedError):
        skipped_files.SkipLedger(None, {"a": 10}, 0.25).add(skips)
    _, clip, skips = skipped_files.first_decodable("a", len(PATHS), 0, reader(set(PATHS)), 1.0)
    assert clip is None
    assert len(skips) == 10


def test_each_skipped_file_is_logged_once(tmp_path):
    file = tmp_path / "skipped.jsonl"
    ledger = skipped_files.SkipLedger(file, {"a": 100, "b": 100}, 0.05)
    ledger.add([])
    assert not file.exists()
    ledger.add([skip(1), skip(2), skip(1)])
    ledger.add([skip(2), skip(1, "b")])
    skipped_files.SkipLedger(file, {"a": 100, "b": 100}, 0.05).add([skip(1), skip(7)])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["source"], line["item"]) for line in lines] == [("a", 1), ("a", 2), ("b", 1), ("a", 7)]
    assert lines[0] == {"source": "a", "item": 1, "path": "/x/1.mp4", "reason": "broken"}


def test_truncated_last_line_is_rewritten(tmp_path):
    file = tmp_path / "skipped.jsonl"
    sizes = {"a": 100}
    skipped_files.SkipLedger(file, sizes, 1.0).add([skip(1), skip(2)])
    whole = file.read_text()
    for cut in (len(whole) - 5, len(whole) - 1, 10):
        file.write_text(whole[:cut])
        ledger = skipped_files.SkipLedger(file, sizes, 1.0)
        ledger.add([skip(1), skip(2)])
        assert file.read_text() == whole
        assert ledger.skips == [skip(1), skip(2)]


def test_too_many_skips_raise_with_the_first_ten(tmp_path):
    ledger = skipped_files.SkipLedger(tmp_path / "skipped.jsonl", {"a": 300, "b": 10}, 0.05)
    ledger.add([skip(i) for i in range(15)])
    with pytest.raises(skipped_files.TooManySkippedError) as caught:
        ledger.add([skip(15)])
    message = str(caught.value)
    assert "'a': 16 of 300" in message
    assert "0.05" in message
    assert message.splitlines()[1:] == [f"  /x/{i}.mp4: broken" for i in range(10)]
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 16
    with pytest.raises(skipped_files.TooManySkippedError, match="'b': 1 of 10"):
        ledger.add([skip(0, "b")])


def test_restarting_a_failed_run_raises_again(tmp_path):
    for _ in range(2):
        ledger = skipped_files.SkipLedger(tmp_path / "skipped.jsonl", {"a": 10}, 0.05)
        with pytest.raises(skipped_files.TooManySkippedError, match="1 of 10"):
            ledger.add([skip(3)])


def test_resumed_run_counts_earlier_skips(tmp_path):
    file = tmp_path / "skipped.jsonl"
    skipped_files.SkipLedger(file, {"a": 100}, 0.05).add([skip(i) for i in range(5)])
    with pytest.raises(skipped_files.TooManySkippedError, match="6 of 100"):
        skipped_files.SkipLedger(file, {"a": 100}, 0.05).add([skip(50)])


def test_ledgers_of_several_processes_share_their_skips(tmp_path):
    """Each ledger has its own skips. After they are shared, their total exceeds the limit."""
    ledgers = [
        skipped_files.SkipLedger(tmp_path / "skipped.jsonl", {"a": 100}, 0.05),
        skipped_files.SkipLedger(None, {"a": 100}, 0.05),
    ]
    ledgers[0].add([skip(i) for i in range(3)])
    ledgers[1].add([skip(i) for i in range(2, 5)])
    new = [ledger.pop_unshared() for ledger in ledgers]
    assert [[s.item for s in part] for part in new] == [[0, 1, 2], [2, 3, 4]]
    for ledger in ledgers:
        for part in new:
            ledger.add(part)
        assert sorted(s.item for s in ledger.skips) == [0, 1, 2, 3, 4]
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 5
    ledgers[1].pop_unshared()
    ledgers[1].add([skip(1)])
    assert ledgers[1].pop_unshared() == []  # already known
    with pytest.raises(skipped_files.TooManySkippedError, match="6 of 100"):
        ledgers[0].add([skip(9)])
