"""Chunks of stored cycles: every one comes back as it was, and damage is refused."""

import zlib

import numpy as np
import pytest
from mesh_in_memory import make_site
from store_bench import SITE, calm, random_record, same

from gateway.model import SPECS
from gateway.site import lounge
from gateway.store_blobs import inflate, pack_cycle, record_of
from gateway.store_chunks import CYCLES_MAX, pack_chunk, unpack_chunk


def plain(record, site=SITE):
    return inflate(pack_cycle(record, site.mask), site.mask.shape)


def random_cycles(rng, count, site=SITE, spec="lean"):
    shape, carried = SPECS[spec], np.ones(site.block_shape, np.bool_)
    sizes = shape.channels, shape.exchanges
    return [random_record(rng, cycle, site, *sizes)._replace(carried=carried) for cycle in range(count)]


@pytest.mark.parametrize("site", [SITE, lounge(), make_site(1, 1), make_site(5, 7, {(0, 0), (4, 6)})], ids=str)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("count", [1, 2, 60])
def test_cycles_come_back_as_they_were(site, spec, count, seed):
    records = random_cycles(np.random.default_rng(seed), count, site, spec)
    chunk = pack_chunk([plain(record, site) for record in records])
    found = unpack_chunk(chunk, site.mask.shape)
    assert count == len(found)
    for record, one in zip(records, found, strict=True):
        again, cells = record_of(record.cycle, one)
        assert same(record, again)
        assert np.array_equal(site.mask, cells)


def test_the_proofs_of_mode_event_come_back(seed):
    rng = np.random.default_rng(seed)
    proofs = rng.integers(0, 256, (9, *SITE.mask.shape)).astype(np.uint8)
    records = [one._replace(proofs=proof) for one, proof in zip(random_cycles(rng, 9), proofs, strict=True)]
    found = unpack_chunk(pack_chunk([plain(record) for record in records]), SITE.mask.shape)
    assert all(same(record, record_of(record.cycle, one)[0]) for record, one in zip(records, found, strict=True))


def test_as_many_cycles_as_a_chunk_can_count_come_back():
    chunk = pack_chunk([plain(calm(0))] * CYCLES_MAX)
    assert [plain(calm(0))] * CYCLES_MAX == unpack_chunk(chunk, SITE.mask.shape)


def test_a_room_that_rests_takes_next_to_nothing():
    """Sixty cycles of 425 cells that all say the same: less than four bytes a cycle, 46 alone."""
    site = lounge()
    one = pack_cycle(calm(0, np.full((17, 25), 2150, np.int16), site), site.mask)
    assert len(pack_chunk([inflate(one, (17, 25))] * 60)) < 60 * len(one) / 12


def test_a_chunk_cut_anywhere_or_made_longer_is_refused(seed):
    data = pack_chunk([plain(record) for record in random_cycles(np.random.default_rng(seed), 3)])
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"chunk|record|stream"):
            unpack_chunk(data[:size], SITE.mask.shape)
    with pytest.raises(ValueError, match="wrong length"):
        unpack_chunk(data + b"\0", SITE.mask.shape)


def test_a_chunk_with_any_bit_flipped_is_refused_or_holds_cycles_of_the_sites_shape(seed):
    data = pack_chunk([plain(record) for record in random_cycles(np.random.default_rng(seed), 3)])
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        try:
            found = unpack_chunk(bytes(wrong), SITE.mask.shape)
        except ValueError:
            continue
        assert all(SITE.mask.shape == record_of(0, one)[0].readings_ccel.shape for one in found)


def test_a_chunk_of_no_cycles_is_refused():
    data = bytearray(pack_chunk([plain(calm(0))])[:7]) + zlib.compress(b"")
    data[1] = 0
    with pytest.raises(ValueError, match="no chunk of cycles"):
        unpack_chunk(bytes(data), SITE.mask.shape)


def test_a_chunk_of_another_grid_is_refused():
    wide = make_site(4, 3)
    data = pack_chunk([plain(calm(0, site=wide), wide)])
    with pytest.raises(ValueError, match="a record of 4 x 3 cells, the site has 3 x 4"):
        unpack_chunk(data, SITE.mask.shape)
