"""What every implementation is held against: the nodes' bytes and arithmetic once more, slow and obvious.

Rules: it imports nothing of ours, so that no mistake is shared; it is written from the tables in protocol/'s
docstrings with whole numbers, lists and `int.to_bytes`; wherever it could be shorter or clearer, clearer wins. It
checks nothing: it is only ever given what is right.

A *cell* is (row, col). A *byte of slots* has one bit per neighbour in reading order, bit 0 NW, bit 7 SE.
"""

from typing import Any

WIRE_VERSION = 1
KINDS = {"beacon": 1, "reading": 2, "no_reading": 3, "activations": 4, "member": 5, "report": 6, "filters": 7}
KINDS |= {"value": 8, "state": 9, "refresh": 10, "proof": 11, "challenge": 12}
PHASES = {"confirmed": 0, "trial": 1, "staged": 2, "returned": 3}
FAULTS = (
    *("malformed", "stranger", "stale", "double", "other_shape"),
    *("abandoned", "deadline", "own_clock", "repeated", "sensor_fault"),
    *("refused_form", "refused_signature", "refused_site", "refused_version", "refused_self_test"),
    *("wave_broken", "set_returned"),
    *("sensor_crc", "sensor_power_on", "sensor_range", "sensor_stuck"),
)
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

Cell = tuple[int, int]
Values = dict[Cell, list[int]]
Fields = dict[str, Any]


# Bytes


def u8(value: int) -> bytes:
    """One byte, the lowest of the value."""
    return (value % 2**8).to_bytes(1, "little")


def u16(value: int) -> bytes:
    """The lowest two bytes of the value, lowest first."""
    return (value % 2**16).to_bytes(2, "little")


def u32(value: int) -> bytes:
    """The lowest four bytes of the value, lowest first."""
    return (value % 2**32).to_bytes(4, "little")


def i16(value: int) -> bytes:
    """Two bytes, two's complement, lowest first."""
    return value.to_bytes(2, "little", signed=True)


def i32(value: int) -> bytes:
    """Four bytes, two's complement, lowest first."""
    return value.to_bytes(4, "little", signed=True)


def pack(fields: Fields) -> bytes:
    """A frame, or a health message, from its fields; `kind` names which."""
    pack_kind = {
        "beacon": beacon,
        "reading": reading,
        "no_reading": header,
        "activations": activations,
        "member": member,
        "report": report,
        "filters": filters,
        "value": value,
        "state": state,
        "refresh": header,
        "proof": proof,
        "challenge": challenge,
        "health": health,
    }[fields["kind"]]
    return pack_kind(fields)


def header(fields: Fields) -> bytes:
    """The header of protocol/frame.py: kind, row, col, and whole run, cycle and version."""
    first = WIRE_VERSION * 16 + KINDS[fields["kind"]]
    place = u8(fields["row"]) + u8(fields["col"])
    return u8(first) + place + u8(fields["run"]) + u16(fields["cycle"]) + u16(fields["version"])


def reading(fields: Fields) -> bytes:
    """A READING frame: reading_ccel."""
    return header(fields) + i16(fields["reading_ccel"])


def value(fields: Fields) -> bytes:
    """A VALUE frame: reading_ccel; the header without its version."""
    return header({**fields, "version": 0})[:-2] + i16(fields["reading_ccel"])


def state(fields: Fields) -> bytes:
    """A STATE frame: state."""
    return header(fields) + u8(fields["state"])


def proof(fields: Fields) -> bytes:
    """A PROOF frame: state, reading_ccel."""
    return state(fields) + i16(fields["reading_ccel"])


def challenge(fields: Fields) -> bytes:
    """A CHALLENGE frame, without a version: place, words_ccel (four, None for no reading)."""
    words_ccel = fields["words_ccel"]
    there = sum(2**place for place in range(4) if words_ccel[place] is not None)
    values = b"".join(i16(word_ccel or 0) for word_ccel in words_ccel)
    return header({**fields, "version": 0})[:-2] + u8(fields["place"] * 16 + there) + values


def activations(fields: Fields) -> bytes:
    """An ACTIVATIONS frame: exchange, activations."""
    return header(fields) + u8(fields["exchange"]) + bytes(fields["activations"])


def member(fields: Fields) -> bytes:
    """A MEMBER frame: absence (one byte per exchange), reading_ccel or None, activations."""
    absence, reading_ccel = fields["absence"], fields["reading_ccel"]
    sends_absence = max(absence) > 0
    sends_reading = reading_ccel is not None
    frame = header(fields) + u8(len(absence) * 16 + sends_absence * 2 + sends_reading * 1)
    if sends_absence:
        frame += bytes(absence)
    if sends_reading:
        frame += i16(reading_ccel)
    return frame + bytes(fields["activations"])


def filters(fields: Fields) -> bytes:
    """A FILTERS frame: highest, phase by name, refused."""
    return header(fields) + u32(fields["highest"]) + u8(PHASES[fields["phase"]]) + u8(fields["refused"])


def beacon(fields: Fields) -> bytes:
    """A beacon of protocol/beacon.py: its numbers and `acknowledged`, the cells of the blocks that are stored."""
    frame = u8(WIRE_VERSION * 16 + KINDS["beacon"]) + u8(fields["flags"]) + u32(fields["run"]) + u32(fields["cycle"])
    frame += u32(fields["period_ms"]) + u16(fields["exchange_ms"]) + u16(fields["gather_ms"])
    frame += u32(fields["version"]) + u32(fields["acked_cycle"])
    rows, cols = fields["block_rows"], fields["block_cols"]
    bitmap = [0] * -(-rows * cols // 8)
    for row, col in fields["acknowledged"]:
        block = row * cols + col
        bitmap[block // 8] += 2 ** (block % 8)
    setting = u16(fields["setting"]) if fields["flags"] % 4 else b""
    return frame + u8(rows) + u8(cols) + bytes(bitmap) + setting


def report(fields: Fields) -> bytes:
    """A report of protocol/report.py.

    Its fields are boot, seq, exchanges, and members: for each corner None (not there), "no_reading", or a dict of
    absence, reading_ccel (or None) and activations.
    """
    members = fields["members"]
    pooled = [corner for corner in range(4) if isinstance(members[corner], dict)]
    silent = [corner for corner in range(4) if members[corner] == "no_reading"]
    absent = [corner for corner in pooled if max(members[corner]["absence"]) > 0]
    readings = [members[corner]["reading_ccel"] for corner in pooled]
    sends_readings = None not in readings
    frame = header(fields) + u32(fields["boot"]) + u32(fields["seq"])
    frame += u8(sum(2**corner for corner in pooled) + 16 * sum(2**corner for corner in silent))
    marks = [sends_readings, fields.get("has_older", False), fields.get("no_beacon", False)]
    frame += u8(fields["exchanges"] * 16 + sum(2**bit for bit in range(3) if marks[bit]))
    frame += u8(sum(2**corner for corner in absent))
    for corner in absent:
        frame += bytes(members[corner]["absence"])
    if sends_readings:
        frame += b"".join(i16(reading_ccel) for reading_ccel in readings)
    return frame + bytes(maximum([members[corner]["activations"] for corner in pooled]))


def health(fields: Fields) -> bytes:
    """A health message of protocol/health.py: counts by kind, mqtt, and faults by name where they are not zero."""
    counters = fields["sent"] + fields["sent_bytes"] + fields["taken"] + fields["taken_bytes"] + fields["mqtt"]
    counters += [fields["faults"].get(name, 0) for name in FAULTS]
    return b"".join(u32(counter) for counter in counters)


def filter_set(version: int, site: str, reference_ccel: int, layers: list[Fields]) -> bytes:
    """A filter set of protocol/filter_set.py, unsigned.

    Layers have kind, shift, bias and weights [filter][in * taps]; a layer with a sign also has activation "sign".
    """
    data = b"TF" + u8(1) + u8(len(layers)) + u32(version) + i16(reference_ccel) + u8(2) + u8(0)
    data += u8(len(site)) + site.encode("ascii")
    for layer in layers:
        taps = {"conv3x3": 9, "conv1x1": 1}[layer["kind"]]
        channels_in, filters = len(layer["weights"][0]) // taps, len(layer["weights"])
        data += u8(3 if has_sign(layer) else {"conv3x3": 1, "conv1x1": 2}[layer["kind"]])
        data += u8(channels_in) + u8(filters) + u8(layer["shift"])
        data += b"".join(i32(bias) for bias in layer["bias"])
        data += b"".join(u8(weight) for row in layer["weights"] for weight in row)
    return data + bytes(64)


# Numbers


def unit(inputs: list[int], weights: list[list[int]], bias: list[int], shift: int) -> list[int]:
    """One unit of one layer: for every channel round half up (sum of products + bias) / 2^shift, clamped to 0..255.

    Args:
        inputs: signed, the taps of the first channel, then those of the next.
        weights: per channel out as many as inputs.
        bias: per channel out.
        shift: 1..24.
    """
    activations = []
    for channel in range(len(bias)):
        total = bias[channel]
        for tap in range(len(inputs)):
            total += inputs[tap] * weights[channel][tap]
        # floor(total / 2^shift + 1/2), with a floor division of whole numbers
        rounded = (2 * total + 2**shift) // (2 * 2**shift)
        activations.append(min(max(rounded, 0), 255))
    return activations


def sign(inputs: list[int], weights: list[list[int]], bias: list[int]) -> list[int]:
    """One unit of a layer with a sign: whether any filter's sum of products + bias is at least 0; as in `unit`."""
    for index in range(len(bias)):
        total = bias[index]
        for tap in range(len(inputs)):
            total += inputs[tap] * weights[index][tap]
        if total >= 0:
            return [1]
    return [0]


def has_sign(layer: Fields) -> bool:
    """Whether a layer gives the sign of its filters."""
    return layer.get("activation") == "sign"


def window(values: Values, cell: Cell, absence: int) -> list[int]:
    """What a conv3x3 unit reads: 9 taps per channel, its own value wherever a neighbour's is missing.

    Args:
        values: of all cells that have a value at this layer.
        cell: whose unit it is.
        absence: byte of slots that were not heard though they stand in the site's table.
    """
    row, col = cell
    taps: list[int] = []
    for channel, own in enumerate(values[cell]):
        around = []
        for slot, (down, right) in enumerate(NEIGHBOURS):
            neighbour = (row + down, col + right)
            is_used = neighbour in values and absence // 2**slot % 2 == 0
            around.append(values[neighbour][channel] if is_used else own)
        taps += [*around[:4], own, *around[4:]]
    return taps


def absence_byte(cell: Cell, cells: list[Cell], heard: list[Cell]) -> int:
    """The slots whose neighbour is in the site's table and yet was not heard."""
    row, col = cell
    places = [(row + down, col + right) for down, right in NEIGHBOURS]
    return sum(2**slot for slot in range(8) if places[slot] in cells and places[slot] not in heard)


def layers_of(
    readings: dict[Cell, int], reference_ccel: int, layers: list[Fields], absence: list[dict[Cell, int]]
) -> Values:
    """The last activations of every cell that has a reading.

    Args:
        readings: ccel by cell, none where there is no reading.
        reference_ccel: what the first layer subtracts.
        layers: as in `filter_set`.
        absence: per conv3x3 layer the byte of slots of each cell.
    """
    values = {cell: [min(max(ccel - reference_ccel, -(2**15)), 2**15 - 1)] for cell, ccel in readings.items()}
    exchange = 0
    for layer in layers:
        if layer["kind"] == "conv3x3":
            taps = {cell: window(values, cell, absence[exchange][cell]) for cell in values}
            exchange += 1
        else:
            taps = values
        if has_sign(layer):
            values = {cell: sign(taps[cell], layer["weights"], layer["bias"]) for cell in values}
        else:
            values = {cell: unit(taps[cell], layer["weights"], layer["bias"], layer["shift"]) for cell in values}
    return values


def pool(values: Values) -> dict[Cell, list[int]]:
    """The maximum per channel of each 2x2 block that has a member, by (block row, block column)."""
    blocks: dict[Cell, list[list[int]]] = {}
    for (row, col), channels in values.items():
        blocks.setdefault((row // 2, col // 2), []).append(channels)
    return {block: maximum(members) for block, members in blocks.items()}


def maximum(members: list[list[int]]) -> list[int]:
    """The maximum per channel; nothing when there are no members."""
    return [max(channel) for channel in zip(*members, strict=True)]
