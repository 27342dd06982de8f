"""The simulated lounge (sim/field): its readings as a whole, and the physics below them."""

import numpy as np
import pytest

from gateway.rule import abnormal
from sim.field.events import events
from sim.field.heat import HeatBalance, conductances
from sim.field.lounge import TUNING_SLOTS, Lounge, simulate
from sim.field.parameters import Stream
from sim.field.plan import plan
from sim.field.sensors import readings_ccel
from sim.field.sources import fixtures
from sim.field.weather import busy, weather

# R0-14: 2,400 training and 561 test fields.
SEED_SLOTS = 2_961
SEEDS = (1, 2, 3)
# An L-shaped room.
ELL = frozenset((row, col) for row in range(3) for col in range(4, 8))


@pytest.fixture(scope="module", params=SEEDS)
def two_months(request):
    return simulate(Lounge(seed=request.param), SEED_SLOTS)


def largest_differences(readings):
    vertical = np.abs(np.diff(readings.astype(np.int32), axis=1)).max(axis=(1, 2))
    return np.maximum(vertical, np.abs(np.diff(readings.astype(np.int32), axis=2)).max(axis=(1, 2)))


def test_forty_percent_of_the_seed_documents_slots_are_abnormal(two_months):
    assert (SEED_SLOTS, 17, 25) == two_months.shape
    assert pytest.approx(0.40, abs=0.015) == abnormal(two_months, Lounge().mask).mean()


def test_readings_are_those_of_a_lounge(two_months):
    assert np.int16 == two_months.dtype
    assert two_months.min() >= 500
    assert two_months.max() <= 4500
    assert 1800 <= np.median(two_months) <= 2300
    assert np.mean((two_months > 1500) & (two_months < 3000)) > 0.99


def test_many_slots_lie_near_the_threshold_so_the_task_is_hard(two_months):
    near = np.abs(largest_differences(two_months) - 300) < 50
    assert 0.1 < near.mean() < 0.6


def test_the_abnormal_pairs_are_not_always_the_same(two_months):
    differences = np.abs(np.diff(two_months.astype(np.int32), axis=2)) >= 300
    assert differences.any(axis=0).sum() > 40
    assert differences.mean(axis=0).max() < 0.4


def test_readings_are_sixteenths_of_a_degree_rounded_half_up(two_months):
    sixteenths = {(100 * step + 8) // 16 for step in range(-1000, 1000)}
    assert set(np.unique(two_months).tolist()) <= sixteenths


def test_a_room_is_the_same_each_time_and_another_seed_is_another_room():
    small = Lounge(rows=4, cols=5, seed=7)
    assert np.array_equal(simulate(small, 60), simulate(small, 60))
    assert not np.array_equal(simulate(small, 60), simulate(Lounge(rows=4, cols=5, seed=8), 60))


def test_a_longer_run_begins_like_a_shorter_one():
    small = Lounge(rows=4, cols=5)
    longest = simulate(small, TUNING_SLOTS + 100)
    for slots in (0, 1, 30, TUNING_SLOTS, TUNING_SLOTS + 7):
        assert np.array_equal(longest[:slots], simulate(small, slots))


def test_holes_read_zero_and_nothing_stands_in_them():
    ell = Lounge(rows=6, cols=8, holes=ELL)
    readings = simulate(ell, 48)
    assert not readings[:, ~ell.mask].any()
    assert readings[:, ell.mask].all()
    holes = {row * 8 + col for row, col in ELL}
    assert all(holes.isdisjoint(cells.tolist()) for cells in plan(ell))


def test_no_heat_passes_a_hole():
    down, right = conductances(Lounge(rows=3, cols=3, holes=frozenset({(1, 1)})))
    assert [0, 0] == down[:, 1].tolist()
    assert [0, 0] == right[1].tolist()
    assert (down[:, [0, 2]] > 0).all()


def test_walls_follow_the_outline_of_the_room():
    ell = plan(Lounge(rows=6, cols=8, holes=ELL))
    assert [5 * 8 + col for col in range(8)] == ell.south_wall.tolist()
    assert [row * 8 for row in range(6)] == ell.west_wall.tolist()
    flipped = plan(Lounge(rows=6, cols=8, holes=frozenset((5 - row, 7 - col) for row, col in ELL)))
    assert [2 * 8 + col for col in range(4)] == flipped.south_wall.tolist()[:4]
    assert [0, 8, 16, 24 + 4, 32 + 4, 40 + 4] == flipped.west_wall.tolist()


@pytest.mark.parametrize("shape", [(5, 10), (2, 2), (1, 6)])
def test_sites_of_other_shapes_reach_their_share_too(shape):
    site = Lounge(*shape)
    assert pytest.approx(0.40, abs=0.02) == abnormal(simulate(site, TUNING_SLOTS), site.mask).mean()


def test_another_share_is_reached_too():
    site = Lounge(rows=5, cols=5, abnormal_share=0.1)
    assert pytest.approx(0.1, abs=0.02) == abnormal(simulate(site, TUNING_SLOTS), site.mask).mean()


@pytest.mark.parametrize("holes", [{(0, 1), (1, 0)}, {(0, 0), (0, 1), (1, 1)}], ids=["corner to corner", "one cell"])
def test_a_site_without_neighbours_is_never_abnormal_and_keeps_its_sensors_off_their_limits(holes):
    site = Lounge(rows=2, cols=2, holes=frozenset(holes))
    readings = simulate(site, 500)
    assert not abnormal(readings, site.mask).any()
    assert readings.min() > -3000
    assert readings.max() < 6000


def test_progress_rises_to_its_end():
    calls = []
    simulate(Lounge(rows=2, cols=2), 10, lambda done, total: calls.append((done, total)))
    assert (TUNING_SLOTS, TUNING_SLOTS) == calls[-1]
    assert sorted(calls) == calls


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("rows", {"rows": 0}),
        ("cols", {"cols": 256}),
        ("seed", {"seed": -1}),
        ("slot_s", {"slot_s": 1}),
        ("substeps", {"substeps": 0}),
        ("abnormal_share", {"abnormal_share": 1.5}),
        ("holes", {"holes": frozenset({(17, 0)})}),
        ("holes", {"rows": 1, "cols": 1, "holes": frozenset({(0, 0)})}),
    ],
)
def test_an_impossible_room_is_refused_by_the_name_of_its_field(field, wrong):
    with pytest.raises(ValueError, match=f"^{field}: "):
        Lounge(**wrong)


def test_a_negative_number_of_slots_is_refused():
    with pytest.raises(ValueError, match=r"^slots: -1 "):
        simulate(Lounge(), -1)


def balance(lounge, loss_w_k):
    return HeatBalance(lounge, np.full((lounge.rows, lounge.cols), loss_w_k), np.array([20.0]))


def test_a_closed_room_keeps_its_heat(seed):
    """Cells and slow mass together, whatever the split by directions does."""
    lounge = Lounge(rows=5, cols=7)
    room = balance(lounge, 0.0)
    room.temperature += np.random.default_rng(seed).normal(0, 5, room.temperature.shape)

    def heat_j():
        return lounge.cell_capacity_j_k * room.temperature.sum() + lounge.slow_capacity_j_k * room._slow.sum()

    before = heat_j()
    for _ in range(50):
        room.step(np.zeros_like(room.temperature))
    assert pytest.approx(before, rel=1e-12) == heat_j()


def test_the_steady_state_is_that_of_the_dense_system():
    """Kirchhoff's equations of the same room, solved at once."""
    lounge = Lounge(rows=4, cols=6)
    power_w = np.zeros((4, 6, 1))
    power_w[1, 2], power_w[3, 5] = 300, -100
    loss_w_k = 3.0
    down, right = conductances(lounge)
    system = loss_w_k * np.eye(24)
    at = np.arange(24).reshape(4, 6)
    for firsts, seconds, links in ((at[:-1], at[1:], down), (at[:, :-1], at[:, 1:], right)):
        for first, second, conductance in zip(firsts.flat, seconds.flat, links.flat, strict=True):
            system[[first, second], [first, second]] += conductance
            system[[first, second], [second, first]] -= conductance
    room = balance(lounge, loss_w_k)
    for _ in range(6_000):
        room.step(power_w)
    np.testing.assert_allclose(np.linalg.solve(system, power_w.ravel()), room.temperature.ravel(), atol=1e-6)


def test_the_answer_is_linear_in_the_sources(seed):
    lounge = Lounge(rows=3, cols=4)
    rng = np.random.default_rng(seed)
    room = HeatBalance(lounge, np.full((3, 4), 2.0), np.zeros(3))
    for _ in range(20):
        first, second = rng.normal(0, 200, (2, 3, 4))
        room.step(np.stack([first, second, 2 * first - 3 * second], axis=-1))
    first, second, both = np.moveaxis(room.temperature, -1, 0)
    np.testing.assert_allclose(2 * first - 3 * second, both, atol=1e-9)


def test_a_long_step_does_not_swing():
    lounge = Lounge(rows=3, cols=3, slot_s=86_400, substeps=1)
    room = balance(lounge, 2.0)
    room.temperature[1, 1] = 60
    spread = 40.0
    for _ in range(lounge.steps):
        room.step(np.full((3, 3, 1), 2.0 * 20))
        assert np.ptp(room.temperature) <= spread
        spread = np.ptp(room.temperature)
    assert spread < 0.1


def test_sensors_stop_at_their_range_and_round_as_the_datasheet_steps():
    truth = np.array([-100, -55, -0.03, 0.0, 0.0625, 21.07, 125, 300], np.float32)
    assert [-5500, -5500, 0, 0, 6, 2106, 12500, 12500] == readings_ccel(truth).tolist()


def test_the_sun_shines_by_day_only_and_on_the_west_wall_in_the_afternoon():
    sky = weather(Lounge(), 48 * 10)
    night = (sky.hour < 5) | (sky.hour > 19)
    assert 0 == sky.south_w_m2[night].max()
    assert 0 == sky.west_w_m2[sky.hour < 12].max()
    assert sky.west_w_m2[sky.hour > 12].max() > 200


def test_nobody_is_there_at_night_and_weekends_are_quiet():
    sky = weather(Lounge(), 48 * 7)
    crowd = busy(sky)
    assert crowd[sky.hour < 5].max() < 0.05
    assert crowd[sky.weekday < 5].max() > 2 * crowd[sky.weekday >= 5].max()


def test_events_start_as_often_and_last_as_long_as_they_should():
    lounge, slots = Lounge(), 20_000
    sky = weather(lounge, slots)
    powers = events(lounge, plan(lounge), sky).power_w
    going_on = (powers != 0).any(axis=1).mean()
    # 0.02..0.06 starts a slot, two hours (four slots) each on average: 8 to 24 % of the time.
    assert 0.06 < going_on < 0.24
    lane = np.concatenate([[0], powers[:, 0] != 0, [0]]).astype(int)
    lengths = np.flatnonzero(np.diff(lane) < 0) - np.flatnonzero(np.diff(lane) > 0)
    assert 1 == lengths.min()
    assert 7 == lengths.max()


def test_what_stands_in_the_room_is_as_much_as_its_area_asks():
    room = plan(Lounge())
    assert (12, 40, 3, 6) == tuple(len(cells) for cells in (room.vents, room.seats, room.doors, room.machines))
    half = plan(Lounge(rows=5, cols=42))
    assert (6, 20, 1, 3) == tuple(len(cells) for cells in (half.vents, half.seats, half.doors, half.machines))
    sky = weather(Lounge(), 5)
    assert fixtures(Lounge(), room, sky).power_w.shape == fixtures(Lounge(), room, sky).cells.shape


def test_no_two_streams_of_random_numbers_are_the_same():
    draws = [tuple(Lounge().stream(stream).random(3)) for stream in Stream]
    assert len(Stream) == len(set(draws))
