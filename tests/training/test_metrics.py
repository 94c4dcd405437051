import json

from jepa_jax.training.metrics import MetricsWriter


def write(folder, process, step=0):
    writer = MetricsWriter(folder, step, process)
    for number in range(step + 1, step + 4):
        writer.write(number, {"loss": float(number), "data/queue": number / 2})
    writer.close()


def test_process_0_writes_all_metrics_and_the_others_only_their_own(tmp_path):
    for process in (0, 1):
        write(tmp_path, process)
    records = [
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "metrics.process-1.jsonl")
    ]
    assert records[0][1] == {"step": 2, "loss": 2.0, "data/queue": 1.0}
    assert records[1][1] == {"step": 2, "data/queue": 1.0}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_resume_truncates_each_file(tmp_path):
    for process in (0, 1):
        write(tmp_path, process)
        write(tmp_path, process, step=1)
    for name in ("metrics.jsonl", "metrics.process-1.jsonl"):
        assert [json.loads(line)["step"] for line in (tmp_path / name).read_text().splitlines()] == [1, 2, 3, 4]
