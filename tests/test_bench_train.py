"""The bench of a training step: engines that agree, ratios that are judged."""

import sys

import numpy as np
import pytest

from tools import bench_train
from tools.bench_train import BenchError, Measured, bench, make_task


def test_the_batch_loses_a_tenth_of_what_neighbours_say_and_nobody_outside_is_heard():
    heard = make_task().batch["heard"]
    north, east = heard[:, 1], heard[:, 4]
    assert (2, 8, 100, 17, 25) == heard.shape
    assert not north[..., 0, :].any()
    assert not east[..., -1].any()
    assert 0.9 == pytest.approx(north[..., 1:, :].mean(), abs=0.01)


@pytest.mark.slow
def test_onnx_and_numpy_come_to_the_same_losses_and_a_missing_torch_is_left_out():
    measured = bench(1, sys.executable)
    assert {"onnx", "numpy"} <= set(measured)
    assert measured["onnx"].losses == pytest.approx(measured["numpy"].losses, rel=1e-3)
    assert np.all(np.diff(measured["onnx"].losses) < 0)
    assert 20 < measured["onnx"].ready_mb < measured["onnx"].peak_mb < 1000


@pytest.mark.slow
def test_a_step_keeps_nothing_that_it_can_compute_again(tmp_path):
    """19 MB on top of what was there; 33 with the taps of the second layer kept, 53 with onnxruntime's memory plan."""
    path = tmp_path / "task.npz"
    bench_train._save(make_task(), path)
    measured = bench_train._measure(sys.executable, "onnx", path)
    assert measured.peak_mb - measured.ready_mb < 26


def test_engines_that_disagree_are_named(monkeypatch):
    runs = {"onnx": Measured(1, 1, 1, [2.0]), "numpy": Measured(1, 1, 1, [2.1]), "torch": None}
    monkeypatch.setattr(bench_train, "_measure", lambda _python, name, _path: runs[name])
    with pytest.raises(BenchError, match="different losses"):
        bench(1, sys.executable)


def test_an_engine_that_cannot_be_run_is_named():
    with pytest.raises(BenchError, match="ONNX Runtime failed"):
        bench_train._measure("/bin/false", "onnx", bench_train.Path("nowhere"))


@pytest.mark.parametrize(
    ("torch", "holds"),
    [
        (Measured(10, 250, 300, []), True),
        (Measured(9.9, 250, 300, []), False),
        (Measured(10, 250, 299, []), False),
        (None, None),
    ],
)
def test_onnx_may_take_torchs_time_and_a_third_of_its_memory(torch, holds):
    measured = {"onnx": Measured(10, 80, 100, []), "numpy": Measured(20, 40, 50, [])}
    measured |= {"torch": torch} if torch else {}
    answer = bench_train._as_json(measured)
    assert holds is answer["holds"]
    table = bench_train._table(answer)
    assert ("not installed" in table) == (torch is None)
