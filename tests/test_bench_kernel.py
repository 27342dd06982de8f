"""The kernel's benchmark: it compares what it says it compares; how fast this machine is, is not tested."""

import json
import shutil

import pytest
from on_micropython import require_micropython

from firmware.unit import convolve
from firmware.zone import ABNORMAL, DOWN, FAR, UP, limits
from tools import bench_kernel
from tools.bench_kernel import BenchError, Result
from tools.rig import interpreter, kernel_timing

FAST = Result({"c": 100, "viper": 500, "plain": 30_000, "cpython": 40_000}, {"viper": 750, "plain": 60_000})


def printed(monkeypatch, capsys, result, *options):
    """Exit code and output of the command when the contestants came to a result, or to an error."""

    def bench(_):
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(bench_kernel, "bench", bench)
    monkeypatch.setattr("sys.argv", ["bench_kernel", *options])
    return bench_kernel.main(), capsys.readouterr()


def test_the_two_bounded_ratios_are_printed_with_their_bounds(monkeypatch, capsys):
    code, output = printed(monkeypatch, capsys, FAST)
    assert code == 0
    assert "viper over plain: 60x (at least 15x)\n" in output.out
    assert "viper over C: 5.0x slower (at most 8x)\n" in output.out


def test_a_zone_is_printed_beside_the_units_of_the_same_runtime(monkeypatch, capsys):
    _, output = printed(monkeypatch, capsys, FAST)
    (line,) = [line for line in output.out.splitlines() if line.split()[-2:] == ["750", "1.5x"]]
    assert line.startswith("MicroPython, viper")


@pytest.mark.parametrize("slow", [{"viper": 801}, {"plain": 7_499}])
def test_a_broken_bound_makes_the_exit_code_1(monkeypatch, capsys, slow):
    assert printed(monkeypatch, capsys, FAST._replace(ns=FAST.ns | slow))[0] == 1


@pytest.mark.parametrize("just", [{"viper": 800}, {"plain": 7_500}])
def test_a_bound_just_kept_is_kept(monkeypatch, capsys, just):
    assert printed(monkeypatch, capsys, FAST._replace(ns=FAST.ns | just))[0] == 0


def test_what_is_missing_is_named_and_makes_the_exit_code_2(monkeypatch, capsys):
    code, output = printed(monkeypatch, capsys, BenchError("gcc is not on PATH; install it"))
    assert code == 2
    assert output.err == "bench-kernel: gcc is not on PATH; install it\n"


@pytest.mark.parametrize("missing", ["gcc", "micropython"])
def test_a_missing_contestant_is_an_error_that_says_what_to_install(monkeypatch, missing):
    if missing == "gcc":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    else:
        monkeypatch.setattr(interpreter, "is_installed", lambda: False)
        if shutil.which("gcc") is None:
            pytest.skip("gcc is not installed")
    with pytest.raises((BenchError, interpreter.InterpreterError), match=r"install"):
        bench_kernel.bench(1)


def test_the_timed_pair_is_that_of_spec_seed():
    shapes = [list(kernel_timing.buffers(layer)[4]) for layer in (0, 1)]
    assert [shape[:2] for shape in shapes] == [[9, 5], [45, 5]]
    assert sum(taps * channels for taps, channels, *_ in shapes) == kernel_timing.MULTIPLY_ADDS


def test_the_timed_pair_spreads_its_activations():
    activations = bytes.fromhex(kernel_timing.measure(convolve, 1, 1)[1])
    assert len(activations) == 10
    assert len({*activations} - {0, 255}) >= 5


def test_the_timed_zone_bounds_the_reading_both_ways_beside_an_abnormal_window():
    out, view, there, weights, bias = kernel_timing.zone_buffers()
    limits(out, view, there, weights, bias)
    assert 0 < out[UP] < FAR
    assert 0 < out[DOWN] < FAR
    assert 1 == out[ABNORMAL] & 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_all_contestants_run_and_come_to_the_same_activations(monkeypatch, capsys):
    require_micropython()
    monkeypatch.setattr("sys.argv", ["bench_kernel", "--json", "--rounds", "1"])
    assert bench_kernel.main() in (0, 1)
    answer = json.loads(capsys.readouterr().out)
    assert answer["multiply_adds"] == 270
    assert set(answer["ns"]) == {"c", "viper", "plain", "cpython"}
    assert set(answer["zone_ns"]) == {"viper", "plain", "cpython"}
    assert min(*answer["ns"].values(), *answer["zone_ns"].values()) > 0
    assert answer.keys() >= {"plain_over_viper", "plain_over_viper_min", "viper_over_c", "viper_over_c_max", "holds"}
