"""The gateway's file: what it may say, how long its cycles may take, and the line that names what is wrong."""

import re
import subprocess
import sys

import pytest

from gateway.config import ConfigError, load_config, next_run
from gateway.gateway import Timing
from gateway.model import SPECS

SITE = 'name = "hall"\nrows = 2\ncols = 3\n'


@pytest.fixture
def written(tmp_path):
    """Writes a gateway's file and its site's, and gives the gateway's path."""

    def write(text='site = "site.toml"\n', cycle_s=60):
        (tmp_path / "site.toml").write_text(f"{SITE}cycle_s = {cycle_s}\n")
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return path

    return write


def timing_of(times):
    return 'site = "site.toml"\n[timing]\n' + "".join(f"{name} = {value}\n" for name, value in times.items())


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def test_only_the_site_has_to_be_there(written, tmp_path):
    found = load_config(written())
    assert ("hall", "seed", "auto", tmp_path / "state") == (found.site.name, found.spec, found.broker, found.state)
    assert Timing(60_000) == found.timing
    assert (0.5, 0.1) == found.limits
    assert (240, 2880) == found.learning
    assert 400 == found.keeping.keep_days


def test_nodes_speak_always_unless_it_is_written_that_they_speak_on_events(written):
    assert "always" == load_config(written()).mode
    assert "event" == load_config(written('site = "site.toml"\nspec = "zone"\nmode = "event"\n')).mode


def test_what_is_written_counts(written):
    text = 'site = "site.toml"\nspec = "lean"\nbroker = "h:1"\nstate = "s"\n[decision]\nthreshold = 0.6\nband = 0\n'
    text += "[store]\nkeep_days = 30\n"
    found = load_config(written(text + "[timing]\nexchange_ms = 100\ngather_ms = 200\nreport_ms = 300\n"))
    assert 30 == found.keeping.keep_days
    assert ("lean", "h:1", "s", (0.6, 0)) == (found.spec, found.broker, found.state.name, found.limits)
    assert Timing(60_000, 100, 200, 300) == found.timing


@pytest.mark.parametrize(("line", "plain"), [("", None), ("plain = true\n", True), ("plain = false\n", False)])
def test_whether_the_broker_is_reached_without_tls_may_stay_open(written, line, plain):
    assert plain is load_config(written('site = "site.toml"\n' + line)).plain


def test_copies_take_two_exchanges_more(written):
    text = 'site = "site.toml"\nspec = "zone"\nmode = "event"\n[event]\ncopies = '
    assert [0, 2] == [load_config(written(text + copies)).copies for copies in "02"]
    # 3 x 2500 + 1500 + 1500 ms come to 10.5 s.
    assert Timing(3_000, 714, 428, 428) == load_config(written(text + "2", cycle_s=3)).timing


# The longest cycle fits the period


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("cycle_s", [1, 2, 3, 5, 7, 8, 9, 60])
def test_the_longest_cycle_fits_the_period_whatever_the_period(written, spec, cycle_s):
    timing = load_config(written(f'site = "site.toml"\nspec = "{spec}"\n', cycle_s)).timing
    assert cycle_s * 1000 == timing.period_ms >= timing.cycle_ms(SPECS[spec].exchanges)
    assert min(timing) >= 1


def test_a_short_period_shortens_all_default_times_alike(written):
    """Seed's 2 x 2500 + 1500 + 1500 ms come to 8 s."""
    assert Timing(4_000, 1250, 750, 750) == load_config(written(cycle_s=4)).timing
    assert Timing(8_000) == load_config(written(cycle_s=8)).timing


def test_a_written_time_stays_and_the_others_share_the_rest(written):
    """4000 - 2 x 1500 ms are left for gathering and reporting."""
    assert Timing(4_000, 1500, 500, 500) == load_config(written(timing_of({"exchange_ms": 1500}), 4)).timing


def test_written_times_that_exactly_fill_the_period_are_right(written):
    times = {"exchange_ms": 1000, "gather_ms": 500, "report_ms": 1500}
    assert Timing(4_000, **times) == load_config(written(timing_of(times), 4)).timing


@pytest.mark.parametrize(
    ("times", "longest_ms"),
    [
        ({"exchange_ms": 1000, "gather_ms": 501, "report_ms": 1500}, 4_001),
        ({"exchange_ms": 2500}, 5_002),
        ({"report_ms": 3_998}, 4_001),
    ],
)
def test_written_times_that_do_not_fit_are_named_beside_the_period(written, times, longest_ms):
    named = ", ".join(f"timing.{name} = {value}" for name, value in times.items())
    assert refusal(written(timing_of(times), 4)) == (
        f"{named}: a cycle of seed could take {longest_ms} ms, longer than the site's cycle_s = 4; "
        "write shorter times or a longer cycle_s"
    )


# Refusals


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 'site: is missing; write site = "site.toml", the file that says where nodes stand'),
        ("site = 3", 'site: 3 is no text; write site = "..."'),
        ('site = ""', "site: '' is no text; write site = \"...\""),
        ('site = "site.toml"\nmode = "never"', "mode: 'never' is none; write always, change, event"),
        ('site = "site.toml"\nmode = 1', 'mode: 1 is no text; write mode = "..."'),
        (
            'site = "site.toml"\nmode = "event"',
            'mode: "event": spec "seed" has no zones to be silent in; write spec = "zone"',
        ),
        ('site = "site.toml"\nspec = "ring"', "spec: 'ring' is none; write seed, lean or zone"),
        (
            'site = "site.toml"\ncolour = 1',
            "colour: is no field of this file; fields are broker, decision, event, learning, mode, plain, site, spec, "
            "state, store, timing",
        ),
        ('site = "site.toml"\ntiming = 3', "timing: is no table; write [timing]"),
        (
            'site = "site.toml"\n[event]\ncopies = 2',
            'event.copies: 2: mode "always" has none; write mode = "event" or copies = 0',
        ),
        ('site = "site.toml"\nspec = "zone"\nmode = "event"\n[event]\ncopies = 5', "event.copies: 5 is not in 0..4"),
        ('site = "site.toml"\nspec = "zone"\nmode = "event"\n[event]\ncopies = -1', "event.copies: -1 is not in 0..4"),
        ('site = "site.toml"\nplain = "no"', "plain: 'no' is not true or false"),
        (timing_of({"gather_ms": 0}), "timing.gather_ms: 0 is not in 1..65535"),
        (timing_of({"gather_ms": "true"}), "timing.gather_ms: True is no number"),
        (
            'site = "site.toml"\n[learning]\nevery_cycles = -1',
            "learning.every_cycles: -1 is not in 0..100000; write 0 to learn never",
        ),
        ('site = "site.toml"\n[learning]\ncycles_max = 1', "learning.cycles_max: 1 is not in 2..100000"),
        (
            'site = "site.toml"\n[store]\nkeep_days = -1',
            "store.keep_days: -1 is not in 0..36500; write 0 to keep all for ever",
        ),
        ('site = "site.toml"\n[learning]\ncycles_max = 2.5', "learning.cycles_max: 2.5 is no number"),
        ('site = "a\\u0000b"', "site: 'a\\x00b' is no text; write site = \"...\""),
        (
            f'site = "site.toml"\n[decision]\nband = 1{"0" * 400}',
            "decision: a number there has far too many digits",
        ),
        ('site = "site.toml"\n[decision]\nband = -1', "decision.band: -1.0 is negative; write 0 for no hysteresis"),
    ],
)
def test_a_refusal_names_the_field_the_value_and_what_would_be_right(written, text, line):
    assert line == refusal(written(text))


@pytest.mark.parametrize("text", ["site = ", "a = " + "[" * 5000, "rows = " + "9" * 5000])
def test_what_is_no_toml_is_refused_in_one_line(written, text):
    assert re.match("is not TOML: .{1,200}$", refusal(written(text)))


def test_other_bytes_are_refused(tmp_path):
    (tmp_path / "gateway.toml").write_bytes(b"\xff\xfe\x00")
    assert refusal(tmp_path / "gateway.toml").startswith("is not TOML: ")


def test_a_file_that_would_fill_the_memory_is_refused_unread(tmp_path):
    with (tmp_path / "gateway.toml").open("wb") as file:
        file.truncate(1 << 40)
    assert "is longer than 1000000 bytes; no gateway's file needs that" == refusal(tmp_path / "gateway.toml")


def test_a_missing_file_and_a_folder_are_refused_with_what_to_do(tmp_path):
    remedy = '; write site = "site.toml" there, at least, or name another file'
    assert "cannot be read: No such file or directory" + remedy == refusal(tmp_path / "nope")
    assert "cannot be read: Is a directory" + remedy == refusal(tmp_path)


def test_the_command_names_the_file_that_is_not_there_and_the_remedy():
    command = [sys.executable, "-m", "tools.cli", "gateway", "--config", "nope"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (2, "") == (done.returncode, done.stdout)
    assert 'nope: cannot be read: No such file or directory; write site = "site.toml" there' in done.stderr
    assert 1 == len(done.stderr.splitlines())


# The number of a start


def test_runs_only_rise(tmp_path):
    assert [1, 2, 3] == [next_run(tmp_path / "state") for _ in range(3)]


def test_a_run_is_above_a_floor_though_its_file_is_lost(tmp_path):
    assert 8 == next_run(tmp_path, 7)
    assert 9 == next_run(tmp_path, 3)


def test_a_run_file_that_cannot_be_written_is_named_with_a_remedy(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigError, match=r"run: (Not a directory|File exists); check the folder and its free space"):
        next_run(tmp_path / "state")


def test_a_run_file_that_holds_no_number_is_named(tmp_path):
    (tmp_path / "run").write_text("first")
    with pytest.raises(ConfigError, match=r"run: holds no number; write the number of the last run there"):
        next_run(tmp_path)
