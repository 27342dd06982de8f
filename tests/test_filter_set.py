"""The filter set: packed and taken apart, cut, out of range, and the proof that no sum overflows."""

import json
import random
import struct

import pytest

from protocol import filter_set, fixed
from protocol.filter_set import CONV1X1, CONV3X3, CONV3X3_SIGN
from protocol.frame import CHANNELS_MAX, EXCHANGES_MAX
from protocol.grid import TAPS
from tools.rig.make_vectors import FOLDER

MESHES = json.loads((FOLDER / "mesh.json").read_text(encoding="utf-8"))
CODES = {("conv3x3", "clamp"): CONV3X3, ("conv1x1", "clamp"): CONV1X1, ("conv3x3", "sign"): CONV3X3_SIGN}
BIAS_MAX = 2**29 - 1
# Where fields of SMALL stand: the table in protocol/filter_set.py, with a name of four letters.
MAGIC, FORMAT, COUNT, POOL, TESTS, NAME_SIZE = 0, 2, 3, 10, 11, 12
KIND, CHANNELS_IN, CHANNELS_OUT, SHIFT, BIAS = 17, 18, 19, 20, 21


def layer(kind=CONV3X3, channels_in=1, channels_out=1, shift=8, bias=None):
    taps = channels_in * (TAPS if kind == CONV3X3 else 1)
    weights = [(at * 37 + 128) % 256 - 128 for at in range(channels_out * taps)]
    return kind, channels_in, channels_out, shift, bias or [0] * channels_out, weights


SMALL = filter_set.pack(7, "site", 2200, [layer(channels_out=2), layer(CONV1X1, 2, 1)])


def sign_layer(rng, filters=2):
    """Zero-sum filters on the window."""
    weights = []
    for _ in range(filters):
        window = [rng.randint(-42, 42) for _ in range(3)]
        weights += [0, 0, 0, 0, -sum(window), window[0], 0, *window[1:]]
    return CONV3X3_SIGN, 1, filters, 0, [rng.randint(-BIAS_MAX, BIAS_MAX) for _ in range(filters)], weights


SIGN = filter_set.pack(7, "site", 2200, [sign_layer(random.Random(1))])


def with_byte(place, value):
    return SMALL[:place] + bytes([value]) + SMALL[place + 1 :]


def random_layers(rng):
    layers, channels = [], 1
    for index in range(rng.randint(1, filter_set.LAYERS_MAX)):
        exchanges = sum(one[0] == CONV3X3 for one in layers)
        kind = CONV3X3 if not index or (exchanges < EXCHANGES_MAX and rng.random() < 0.5) else CONV1X1
        taps, channels_out = channels * (TAPS if kind == CONV3X3 else 1), rng.randint(1, CHANNELS_MAX)
        bias = [rng.choice((-BIAS_MAX, 0, BIAS_MAX, rng.randint(-BIAS_MAX, BIAS_MAX))) for _ in range(channels_out)]
        weights = [rng.randint(-128, 127) for _ in range(channels_out * taps)]
        layers.append((kind, channels, channels_out, rng.randint(1, 24), bias, weights))
        channels = channels_out
    return layers


def natural(found, first):
    """A Layer in signed numbers, as `pack` takes it."""
    taps, channels_out, shift, zero = found.shape
    assert (fixed.INPUT_ZERO if first else 0) == zero
    bias = [value - fixed.BIAS_ZERO for value in found.bias]
    weights = [value - fixed.WEIGHT_ZERO for value in found.weights]
    return found.kind, taps // (1 if found.kind == CONV1X1 else TAPS), channels_out, shift, bias, weights


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: mesh["says"])
def test_a_set_is_packed_into_the_golden_bytes(mesh):
    layers = [
        (
            CODES[one["kind"], one.get("activation", "clamp")],
            len(one["weights"][0]) // (TAPS if one["kind"] == "conv3x3" else 1),
            len(one["weights"]),
            one["shift"],
            one["bias"],
            [weight for row in one["weights"] for weight in row],
        )
        for one in mesh["layers"]
    ]
    assert mesh["filter_set"] == filter_set.pack(3, "golden", mesh["reference_ccel"], layers).hex()


def test_what_was_packed_is_unpacked(seed):
    rng = random.Random(seed)
    for _ in range(100):
        layers, version, reference = random_layers(rng), rng.randrange(2**32), rng.randint(-32768, 32767)
        outputs = sum(len(bias) for _, _, _, _, bias, _ in layers)
        tests = [(rng.randrange(2**16), rng.randbytes(outputs)) for _ in range(rng.randrange(filter_set.TESTS_MAX + 1))]
        signature = rng.randbytes(filter_set.SIGNATURE_SIZE)
        unsigned = filter_set.pack(version, "a-site", reference, layers, tests)[: -filter_set.SIGNATURE_SIZE]
        found = filter_set.unpack(unsigned + signature)
        assert (version, "a-site", reference) == (found.version, found.site, found.reference_ccel)
        assert b"".join(state.to_bytes(2, "little") + values for state, values in tests) == found.tests
        assert signature == found.signature
        assert layers == [natural(one, index == 0) for index, one in enumerate(found.layers)]


def test_bytes_bytearray_and_memoryview_are_unpacked_alike():
    assert filter_set.unpack(SMALL) == filter_set.unpack(bytearray(SMALL)) == filter_set.unpack(memoryview(SMALL))


def test_a_set_of_any_other_length_is_refused():
    for size in range(len(SMALL)):
        with pytest.raises(ValueError, match=r"filter set|layer"):
            filter_set.unpack(SMALL[:size])
    with pytest.raises(ValueError, match="wrong length"):
        filter_set.unpack(SMALL + b"\0")


@pytest.mark.parametrize(
    ("place", "good", "message"),
    [
        (MAGIC, {ord("T")}, "no filter set of format 1"),
        (MAGIC + 1, {ord("F")}, "no filter set of format 1"),
        (FORMAT, {1}, "no filter set of format 1"),
        (COUNT, {2}, "filter set|layer"),
        (POOL, {2}, "does not know"),
        (TESTS, {0}, "does not know|cut short"),
        (KIND, {CONV3X3}, "layer kind|layer shift"),
        (CHANNELS_IN, {1}, "layer channels"),
        (CHANNELS_OUT, {2}, "filter set|layer|could overflow"),
        (SHIFT, set(range(1, 25)), "layer shift: not in 1..24"),
        (KIND + 4 + 8 + 18, {CONV1X1}, "filter set|layer"),
        (CHANNELS_IN + 4 + 8 + 18, {2}, "layer channels"),
        (CHANNELS_OUT + 4 + 8 + 18, {1}, "filter set|layer"),
        (SHIFT + 4 + 8 + 18, set(range(1, 25)), "layer shift: not in 1..24"),
    ],
)
def test_a_byte_out_of_its_range_is_refused(place, good, message):
    for value in range(256):
        data = with_byte(place, value)
        if value in good:
            filter_set.unpack(data)
        else:
            with pytest.raises(ValueError, match=message):
                filter_set.unpack(data)


def test_a_name_of_another_length_than_said_is_refused():
    for size in {*range(256)} - {4}:
        with pytest.raises(ValueError, match=r".+"):
            filter_set.unpack(with_byte(NAME_SIZE, size))


def test_a_name_that_leaves_no_room_for_layers_is_refused():
    with pytest.raises(ValueError, match="cut short"):
        filter_set.unpack(SMALL[:NAME_SIZE] + b"\xff" + b"a" * 70)


def test_a_first_layer_that_reads_no_halo_is_refused():
    with pytest.raises(ValueError, match="layer kind"):
        filter_set.unpack(filter_set.pack(1, "s", 0, [layer(CONV1X1)]))


def test_a_name_that_is_not_ascii_is_refused():
    with pytest.raises(ValueError, match=r".+"):
        filter_set.unpack(with_byte(NAME_SIZE + 1, 0xFF))


@pytest.mark.parametrize("bias", [2**29, -(2**29), 2**30, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_bias_of_2_to_the_29_or_more_is_refused(bias, channel):
    data = bytearray(SMALL)
    struct.pack_into("<i", data, BIAS + 4 * channel, bias)
    with pytest.raises(ValueError, match=r"could overflow: a bias of 2\^29 or more"):
        filter_set.unpack(data)


@pytest.mark.parametrize("bias", [BIAS_MAX, -BIAS_MAX])
def test_the_largest_bias_is_taken(bias):
    data = bytearray(SMALL)
    struct.pack_into("<i", data, BIAS, bias)
    assert bias + 2**29 == filter_set.unpack(data).layers[0].bias[0]


def test_a_fifth_exchange_is_refused():
    four = [layer()] * EXCHANGES_MAX
    assert len(filter_set.unpack(filter_set.pack(1, "s", 0, four)).layers) == 4
    with pytest.raises(ValueError, match="more than 4 exchanges"):
        filter_set.unpack(filter_set.pack(1, "s", 0, [*four, layer()]))


def test_a_layer_with_sign_is_unpacked_and_gives_one_channel_for_all_its_filters(seed):
    rng = random.Random(seed)
    for filters in range(1, CHANNELS_MAX + 1):
        layer_of_it, tests = sign_layer(rng, filters), [(1, b"\1"), (2, b"\0")]
        (found,) = filter_set.unpack(filter_set.pack(1, "s", 0, [layer_of_it], tests)).layers
        assert (layer_of_it, 1) == (natural(found, first=True), filter_set.channels_of(found))
        with pytest.raises(ValueError, match="wrong length"):
            filter_set.unpack(filter_set.pack(1, "s", 0, [layer_of_it], [(1, b"\1\1")]))


def test_a_layer_with_sign_beside_another_is_refused(seed):
    with_sign = sign_layer(random.Random(seed))
    for layers in ([with_sign, layer(CONV1X1, 1)], [with_sign, layer()], [layer(), with_sign]):
        with pytest.raises(ValueError, match="layer kind"):
            filter_set.unpack(filter_set.pack(1, "s", 0, layers))


def test_a_layer_with_sign_has_no_shift():
    for shift in range(1, 256):
        with pytest.raises(ValueError, match=r"layer shift: not in 1..24, or, with a sign, not 0"):
            filter_set.unpack(SIGN[:SHIFT] + bytes([shift]) + SIGN[SHIFT + 1 :])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("tap", range(TAPS))
def test_with_sign_a_weight_off_the_window_or_a_sum_other_than_0_is_refused(which, tap):
    off = tap not in (4, 5, 7, 8)
    for change in range(1, 256):
        data = bytearray(SIGN)
        place = BIAS + 4 * 2 + TAPS * which + tap
        data[place] = (data[place] + change) % 256
        with pytest.raises(ValueError, match="not 0 outside the taps C E S SE" if off else "do not add up to 0"):
            filter_set.unpack(data)


def test_a_ninth_layer_or_none_is_refused():
    eight = [layer()] + [layer(CONV1X1)] * 7
    assert len(filter_set.unpack(filter_set.pack(1, "s", 0, eight)).layers) == 8
    for layers in ([], [*eight, layer(CONV1X1)]):
        with pytest.raises(ValueError, match="does not know"):
            filter_set.unpack(filter_set.pack(1, "s", 0, layers))


def test_whatever_arrives_is_unpacked_or_refused_and_nothing_else_is_raised(seed):
    rng = random.Random(seed)
    taken = 0
    for _ in range(20_000):
        data = bytearray(rng.choice((SMALL, SIGN, SMALL[:13] + rng.randbytes(rng.randint(0, 600)))))
        for _ in range(rng.randint(0, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            filter_set.unpack(data)
            taken += 1
        except ValueError:
            pass
    assert taken


def extremes():
    """(taps, shift, largest |input|) of every layer that there can be."""
    for shift in range(fixed.SHIFT_MIN, fixed.SHIFT_MAX + 1):
        yield TAPS, shift, max(-fixed.READING_MIN, fixed.READING_MAX)
        for channels_in in range(1, CHANNELS_MAX + 1):
            for taps in (channels_in, channels_in * TAPS):
                yield taps, shift, fixed.ACTIVATION_MAX


def test_no_set_that_is_taken_has_a_sum_of_2_to_the_30_whatever_it_reads():
    # Whatever the signs and the order of the taps, no partial sum exceeds the sum of all magnitudes.
    for taps, shift, input_max in extremes():
        partial = taps * input_max * fixed.WEIGHT_ZERO + BIAS_MAX + (1 << shift - 1)
        assert partial < 2**30, (taps, shift, input_max)
