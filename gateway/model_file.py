"""A model as one signed file, from one site or training machine to another. Little-endian.

     0  u8[2]  'T' 'M'
     2  u8[2]  format 1, and 0
     4  u32[3] bytes of the filter set, of the head, of the golden vectors
    16  u8[32] SHA-256 of all behind the envelope
    48  u8[64] Ed25519 signature of bytes 0 to 47: here the envelope ends
   112  -      the filter set (protocol/filter_set.py) with its self-tests, unsigned
        -      the head: an ONNX model (gateway/head.py) whose weights lie inside
        -      golden vectors, 1..16: u8[n] features and f32[2] logits each, n features of one cycle

Filter sets are signed over 32 bytes and these files over 48: no signature of the one is any of the other.

Nothing behind the envelope is looked at before the signature holds. Then what stands there is checked from the cheap to
the dear: sizes; the filters, with our own decoder, and their self-tests; the head, in a process of its own
(gateway/foreign_head.py), of which only plain numbers come back. With those, in our own graph, the golden vectors have
to come out once more: whatever that process was made to do, this one has a head that gives what was signed, or none.
"""

import hashlib
import itertools
import struct
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from gateway import foreign_head
from gateway.head import HeadRunner, graph_with
from gateway.model import CLASSES, Filters, Head, Model, ModelError, ModelSpec, head_widths, spec_named
from gateway.site import Site
from gateway.store_blobs import unpack_filters
from gateway.wave import self_tests
from protocol import filter_set

ENVELOPE_SIZE = 112
VECTORS_MAX = 16
# The head's graph without its weights: 1 kB is usual.
GRAPH_SIZE_MAX = 8 << 10
_FACTS = struct.Struct("<2sBB3I32s")
_MAGIC, _FORMAT = b"TM", 1
_LOGITS = np.dtype("<f4")
# Of golden vectors: none, all and random features.
_SEED = 1


class ModelFileError(ValueError):
    """The file cannot be taken; one line that says why and what to do."""


class Foreign(NamedTuple):
    """A model from elsewhere that passed every check.

    Attributes:
        model: with the filters' version of where it comes from, and head revision 0.
        site_name: where it comes from; only a name.
    """

    model: Model
    site_name: str


def pack(model: Model, site: Site, key: Ed25519PrivateKey) -> bytes:
    """A model as a file.

    Args:
        model: any that decides at the site.
        site: whose blocks the head's features are of.
        key: the private half of what those have to trust who take it.
    """
    spec = spec_named(model.spec_name)
    filters = model.filters.pack(site.name, self_tests(model.filters))
    parts = filters, graph_with(spec, model.head).SerializeToString(deterministic=True), _golden(spec, model.head)
    body = b"".join(parts)
    facts = _FACTS.pack(_MAGIC, _FORMAT, 0, *map(len, parts), hashlib.sha256(body).digest())
    return facts + key.sign(facts) + body


def size_max(site: Site, spec: ModelSpec) -> int:
    """The longest that a file for a site can be."""
    return ENVELOPE_SIZE + sum(_limits(head_widths(site, spec), spec))


def unpack(data: bytes, trusted: Ed25519PublicKey, site: Site, spec: ModelSpec) -> Foreign:
    """A model from a file, after every check.

    Args:
        data: what `pack` made, or anything else.
        trusted: the key that has to have signed it.
        site, spec: what the head has to fit.

    Raises:
        ModelFileError, gateway.foreign_head.ForeignHeadError: it is not taken.
    """
    sizes = _check_envelope(data, trusted)
    widths = head_widths(site, spec)
    for name, size, limit in zip(("filters", "head", "golden vectors"), sizes, _limits(widths, spec), strict=True):
        if size > limit:
            remedy = f"a model of spec {spec.name} for this site's blocks takes {limit} at most"
            raise ModelFileError(f"{name}: {size} bytes are too many; {remedy}")
    ends = itertools.accumulate(sizes, initial=ENVELOPE_SIZE)
    packed, onnx_model, vectors = (data[start:end] for start, end in itertools.pairwise(ends))
    filters, site_name = _filters_of(packed)
    features, logits = _vectors_of(vectors, widths[0] - spec.appends_maximum)
    head = foreign_head.check(onnx_model, spec, widths, features, logits)
    try:
        model = Model(spec.name, filters, head)
    except ModelError as error:
        raise ModelFileError(str(error)) from None
    foreign_head.check_logits(HeadRunner(spec, head).logits(features), logits)
    return Foreign(model, site_name)


def _check_envelope(data: bytes, trusted: Ed25519PublicKey) -> tuple[int, ...]:
    """The sizes of the parts, which add up and are signed."""
    if len(data) < ENVELOPE_SIZE or data[:2] != _MAGIC:
        raise ModelFileError("is no model file; write one with `thermesh filters export`")
    facts, body = data[: _FACTS.size], memoryview(data)[ENVELOPE_SIZE:]
    _, form, zero, *sizes, digest = _FACTS.unpack(facts)
    try:
        trusted.verify(data[_FACTS.size : ENVELOPE_SIZE], facts)
    except InvalidSignature:
        remedy = "name the key that did, or copy it again"
        raise ModelFileError(f"signature: the trusted key did not sign it, or it is damaged; {remedy}") from None
    if (form, zero) != (_FORMAT, 0):
        raise ModelFileError(f"format: {form} is unknown, this release reads {_FORMAT}; export it with this release")
    if sum(sizes) != len(body) or hashlib.sha256(body).digest() != digest:
        raise ModelFileError("signature: the content is not what was signed, it is damaged or cut short; copy it again")
    return tuple(sizes)


def _limits(widths: tuple[int, ...], spec: ModelSpec) -> tuple[int, int, int]:
    """Bytes that filters, head and golden vectors can take."""
    numbers = sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))
    vector_size = widths[0] - spec.appends_maximum + CLASSES * _LOGITS.itemsize
    return filter_set.SIZE_MAX, GRAPH_SIZE_MAX + numbers * _LOGITS.itemsize, VECTORS_MAX * vector_size


def _filters_of(data: bytes) -> tuple[Filters, str]:
    """Filters whose self-tests give here what they gave there, and the name of the site that they come from."""
    try:
        filters, name = unpack_filters(data), filter_set.unpack(data).site
        is_same = filters.pack(name, self_tests(filters)) == data
    except ValueError as error:
        raise ModelFileError(f"filters: {error}; export it again") from None
    if not is_same:
        raise ModelFileError("filters: their self-tests do not give what stands in the file; export it again")
    return filters, name


def _golden(spec: ModelSpec, head: Head) -> bytes:
    """Golden vectors of a head: no features, all, and random ones."""
    count = head.widths[0] - spec.appends_maximum
    rng = np.random.default_rng(_SEED)
    features = rng.integers(0, 256, (VECTORS_MAX, count)).astype(np.uint8)
    features[0], features[1] = 0, 255
    features[2 : VECTORS_MAX // 2][rng.random((VECTORS_MAX // 2 - 2, count)) < 0.9] = 0
    logits = HeadRunner(spec, head).logits(features).astype(_LOGITS)
    return b"".join(row.tobytes() + found.tobytes() for row, found in zip(features, logits, strict=True))


def _vectors_of(data: bytes, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Features [vectors, count] and logits [vectors, 2]."""
    size = count + CLASSES * _LOGITS.itemsize
    if not data or len(data) % size:
        raise ModelFileError(f"golden vectors: {len(data)} bytes are none of {count} features, which take {size} each")
    rows = np.frombuffer(data, np.uint8).reshape(-1, size)
    logits = rows[:, count:].copy().view(_LOGITS).astype(np.float32)
    if not np.isfinite(logits).all():
        raise ModelFileError("golden vectors: some logits are not finite; fit the head again")
    return rows[:, :count].copy(), logits
