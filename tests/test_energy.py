"""Energy: each part by hand, and what silence alone does not save."""

import pytest

from gateway.energy import (
    DAY_S,
    ESP32_ESPNOW,
    ESP32_WIFI,
    NRF52840,
    SAMPLE_S,
    TONE_S,
    Load,
    energy_mj,
    listening,
    window_s,
    with_wake_tone,
)

SILENT = Load(0, 0, 0, 0, 1, 43)
HALF_HOUR_S = 1_800


def test_a_frame_is_on_the_air_with_its_overhead_and_the_radios_start():
    """29 bytes at 250 kbit/s are 928 us, 51 at 1 Mbit/s 408."""
    assert 0.000_928 + 0.000_130 == pytest.approx(NRF52840.air_s(1, 8))
    assert 0.000_408 + 0.000_192 == pytest.approx(ESP32_ESPNOW.air_s(1, 8))
    assert 3 * NRF52840.air_s(1, 8) == pytest.approx(NRF52840.air_s(3, 24))


def test_each_part_is_current_times_voltage_times_time_and_the_total_their_sum():
    """One cycle a day: a frame of 8 bytes sent, two heard, a beacon of 43, half a second of listening."""
    found = energy_mj(NRF52840, Load(1, 8, 2, 16, 1, 43, 0.5), DAY_S)
    assert 3.0 * 6.40 * 0.001_058 == pytest.approx(found["transmit"])
    assert 3.0 * 6.53 * 0.002_116 == pytest.approx(found["receive"])
    assert 3.0 * 6.53 * 0.5 == pytest.approx(found["listen"])
    assert 3.0 * 6.53 * (2 * 20e-6 * DAY_S + 0.000_130 + 64 * 0.000_032) == pytest.approx(found["beacon"])
    assert (0, 3.0 * 0.00316 * DAY_S) == (found["wake"], found["sleep"])
    assert found.pop("total") == sum(found.values())


def test_a_board_that_boots_pays_for_each_cycle():
    assert 48 * 38.4 == pytest.approx(energy_mj(ESP32_ESPNOW, SILENT, HALF_HOUR_S)["wake"])
    assert 48 * 543 == pytest.approx(energy_mj(ESP32_WIFI, SILENT, HALF_HOUR_S)["wake"])


def test_a_wait_for_the_beacon_grows_with_the_period_and_not_with_the_number_of_cycles():
    hourly, half_hourly = (
        energy_mj(NRF52840, SILENT._replace(beacon_sizes=0), seconds)["beacon"] for seconds in (3_600, 1_800)
    )
    starts = 24 * NRF52840.receive_mj(NRF52840.air_s(1, 0))
    assert half_hourly - hourly == pytest.approx(starts)


@pytest.mark.parametrize("board", [NRF52840, ESP32_ESPNOW])
def test_silence_is_not_sleep_a_silent_node_that_listens_needs_more_than_one_that_only_sends(board):
    raw = Load(1, 10, 0, 0, 1, 43)
    silent = listening(board, SILENT)
    assert energy_mj(board, silent, HALF_HOUR_S)["transmit"] == 0
    assert energy_mj(board, raw, HALF_HOUR_S)["total"] < energy_mj(board, silent, HALF_HOUR_S)["total"]


def test_a_window_leaves_nine_nodes_time_to_say_a_value_twice():
    assert 18 * 0.001_058 == pytest.approx(window_s(NRF52840))


def test_a_wake_tone_spares_the_window_where_nobody_speaks_and_costs_a_tone_where_one_does():
    assert (SAMPLE_S, 0) == with_wake_tone(NRF52840, SILENT, 0, 0)[-2:]
    quarter = with_wake_tone(NRF52840, SILENT, 0.05, 0.2)
    assert SAMPLE_S + window_s(NRF52840) / 4 == pytest.approx(quarter.listening_s)
    assert 0.05 * TONE_S == quarter.tone_s
    busy = with_wake_tone(NRF52840, SILENT, 3, 5)
    assert (SAMPLE_S + window_s(NRF52840), TONE_S) == (pytest.approx(busy.listening_s), busy.tone_s)


def test_a_tone_is_paid_for_as_sending():
    told = energy_mj(NRF52840, SILENT._replace(tone_s=0.001), DAY_S)
    assert 3.0 * 6.40 * 0.001 == pytest.approx(told["transmit"])
