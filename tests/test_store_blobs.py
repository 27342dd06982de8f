"""What the store keeps as bytes: it comes back as it was, and damage is refused."""

import random

import numpy as np
import pytest
from mesh_in_memory import make_model, make_site
from store_bench import MODEL, SITE, calm, random_record, same, unpack_cycle

from gateway.model import SPECS, Head
from gateway.site import lounge
from gateway.store_blobs import pack_cycle, pack_head, unpack_filters, unpack_head

every_spec = pytest.mark.parametrize("spec", SPECS)


@pytest.mark.parametrize("site", [SITE, lounge(), make_site(1, 1), make_site(5, 7, {(0, 0), (4, 6)})], ids=str)
@every_spec
def test_a_record_comes_back_as_it_was(site, spec, seed):
    rng, shape = np.random.default_rng(seed), SPECS[spec]
    for cycle in range(20):
        record = random_record(rng, cycle, site, shape.channels, shape.exchanges)
        again, cells = unpack_cycle(cycle, pack_cycle(record, site.mask), site.mask.shape)
        assert same(record, again)
        assert np.array_equal(site.mask, cells)


def test_the_proofs_of_mode_event_come_back_and_damage_to_them_is_refused(seed):
    rng = np.random.default_rng(seed)
    for cycle in range(20):
        proofs = rng.integers(0, 256, SITE.mask.shape).astype(np.uint8)
        record = random_record(rng, cycle)._replace(proofs=proofs)
        data = pack_cycle(record, SITE.mask)
        assert same(record, unpack_cycle(cycle, data, SITE.mask.shape)[0])
        with pytest.raises(ValueError, match="wrong length"):
            unpack_cycle(cycle, b"\1" + data[1:], SITE.mask.shape)


def test_readings_at_both_ends_of_int16_come_back():
    readings = np.array([[-32768, 32767, -32768, 0], [32767, 32767, -1, 1], [0, -32768, 32767, -32768]], np.int16)
    again, _ = unpack_cycle(0, pack_cycle(calm(0, readings), SITE.mask), SITE.mask.shape)
    assert np.array_equal(readings, again.readings_ccel)


def test_a_record_cut_anywhere_or_made_longer_is_refused():
    data = pack_cycle(calm(0), SITE.mask)
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"record|stream"):
            unpack_cycle(0, data[:size], SITE.mask.shape)
    with pytest.raises(ValueError, match="wrong length"):
        unpack_cycle(0, data + b"\0", SITE.mask.shape)


def test_a_record_with_any_bit_flipped_is_refused_or_has_its_shape(seed):
    rng = np.random.default_rng(seed)
    data = pack_cycle(random_record(rng), SITE.mask)
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        try:
            record, _ = unpack_cycle(0, bytes(wrong), SITE.mask.shape)
        except ValueError:
            continue
        assert SITE.mask.shape == record.readings_ccel.shape


@every_spec
def test_a_filter_set_and_a_head_come_back_as_the_model_they_were(spec, seed):
    model = make_model(spec, SITE)
    assert model.filters.as_json() == unpack_filters(model.filters.pack(SITE.name)).as_json()
    rng = np.random.default_rng(seed)
    layers = tuple(tuple(rng.normal(size=x.shape).astype(np.float32) for x in layer) for layer in model.head.layers)
    again = unpack_head(7, pack_head(Head(7, layers)))
    assert 7 == again.revision
    for layer, back in zip(layers, again.layers, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(layer, back, strict=True))


def test_a_head_with_any_bytes_changed_is_refused_or_a_head_of_as_many_numbers(seed):
    dice, data = random.Random(seed), pack_head(make_model("seed", SITE).head)
    taken = 0
    for _ in range(3_000):
        changed = bytearray(data)
        places = range(10) if dice.random() < 0.5 else range(len(data))  # versions and shapes, or mostly numbers
        for place in dice.choices(places, k=dice.randint(1, 3)):
            changed[place] = dice.randrange(256)
        try:
            head = unpack_head(1, bytes(changed))
        except ValueError:
            continue
        taken += 1
        assert len(data) == len(pack_head(head))
    assert 0 < taken < 3_000


def test_a_head_cut_anywhere_or_made_longer_is_refused():
    data = pack_head(MODEL.head)
    for size in range(len(data)):
        with pytest.raises(ValueError, match="head"):
            unpack_head(1, data[:size])
    with pytest.raises(ValueError, match="a head of a wrong length"):
        unpack_head(1, data + b"\0")
