"""Heads that others made: an ONNX model is taken apart and run in a process of its own, which may take only so much.

A model of 150 bytes can ask for gigabytes, and a parser of foreign bytes can have faults that nobody knows of. So this
module runs as a program, limited in memory, time and what it may write before it sees the first foreign byte. It says
whether the model is the head that it claims to be, and gives its weights as plain numbers, which are all that is kept.
In this order, each of them named when it is not so:

    it is ONNX as its own library writes it, without unknown fields; no functions, no domains but ONNX's own; only
    operators that our heads need; attributes without graphs or tensors; tensors that lie inside, of the shapes of the
    spec's head, all finite; in all the rest the very graph that gateway/head.py builds; and what it gives for the
    golden vectors.
"""

import itertools
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from gateway.head import graph_with, open_session, weights_of
from gateway.model import Head, ModelSpec, spec_named
from gateway.store_blobs import pack_head, unpack_head

# Python, numpy, onnx and onnxruntime take 200 MB of addresses; the head lies in memory some ten times meanwhile.
MEMORY_BASE = 512 << 20
MEMORY_TIMES = 16
# It takes half a second on a PC.
CPU_S_MAX = 20
WALL_S_MAX = 60
FILES_MAX = 64
# Gemm adds up in another order on another machine; a wrong weight shows anyway.
TOLERANCE = 1e-3
_TEXT_MAX = 300
_FINE, _REFUSED = b"+", b"-"
# What an attribute of ours holds beside its name: numbers.
_NUMBERS = {"name", "type", "i", "ints", "f", "floats"}

Floats = NDArray[np.float32]


class ForeignHeadError(ValueError):
    """The model is not the head that it should be; one line that names what differs."""


def check(data: bytes, spec: ModelSpec, widths: tuple[int, ...], features: NDArray[np.uint8], logits: Floats) -> Head:
    """The head that an ONNX model holds, of revision 0, after every check in a process of its own.

    Args:
        data: the model, signed by somebody trusted.
        spec, widths: what it has to be, widths as in `Head.widths`.
        features: [vectors, n], the inputs of the golden vectors.
        logits: [vectors, 2], what it has to give for them.

    Raises:
        ForeignHeadError: it is something else, or took more than it may.
    """
    sizes = ",".join(map(str, widths))
    command = [sys.executable, "-P", "-m", __name__, spec.name, sizes, str(len(data)), str(len(features))]
    given = data + features.tobytes() + logits.astype("<f4").tobytes()
    answer_max = _answer_max(widths)
    with tempfile.TemporaryFile() as answer:
        code = _run(command, given, answer)
        answer.seek(0)
        said = answer.read(answer_max)
    if code or said[:1] not in (_FINE, _REFUSED):
        raise ForeignHeadError(f"head: the check of it {_end(code)}; nothing of it is used")
    if said[:1] == _REFUSED:
        text = said[1:].decode("utf-8", "replace")
        raise ForeignHeadError("head: " + "".join(letter if letter.isprintable() else "?" for letter in text))
    try:
        head = unpack_head(0, said[1:])
    except ValueError as error:
        raise ForeignHeadError(f"head: the check of it gave {error}; nothing of it is used") from None
    if head.widths != widths:
        raise ForeignHeadError(f"head: the check of it gave widths {head.widths}, not {widths}; nothing of it is used")
    return head


def check_logits(found: Floats, expected: Floats) -> None:
    """See that a head gives what golden vectors say; [vectors, 2] both.

    Raises:
        ForeignHeadError: it gives something else.
    """
    if not (np.isfinite(found).all() and np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)):
        apart = float(np.abs(found - expected).max())
        raise ForeignHeadError(f"golden vectors: logits differ by up to {apart:.3g}; export the model again")


def main() -> None:
    """The program: the head's model and golden vectors on stdin, weights or what is wrong on stdout."""
    spec, widths = spec_named(sys.argv[1]), tuple(map(int, sys.argv[2].split(",")))
    size, vectors = int(sys.argv[3]), int(sys.argv[4])
    try:
        _limit(MEMORY_BASE + MEMORY_TIMES * size, _answer_max(widths))
    except (ValueError, OSError) as error:
        sys.stdout.buffer.write(_REFUSED + f"cannot be looked at: this system sets no limits: {error}".encode())
        return
    data = sys.stdin.buffer.read(size)
    features = np.frombuffer(sys.stdin.buffer.read(vectors * (widths[0] - spec.appends_maximum)), np.uint8)
    logits = np.frombuffer(sys.stdin.buffer.read(), "<f4").reshape(vectors, -1)
    try:
        answer = _FINE + pack_head(_checked(data, spec, widths, features.reshape(vectors, -1), logits))
    except MemoryError:
        answer = _REFUSED + b"takes more memory than a head of this size may"
    except ValueError as error:
        answer = _REFUSED + str(error).encode()[:_TEXT_MAX]
    sys.stdout.buffer.write(answer)


def _run(command: list[str], given: bytes, answer: IO[bytes]) -> int:
    """Run the program; its exit code, or minus the signal that ended it.

    Its answer goes to a file: that a limit can keep short, a pipe it could fill for ever.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": _code_path()}
    try:
        return subprocess.run(
            command,
            input=given,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            timeout=WALL_S_MAX,
            env=environment,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def _code_path() -> str:
    """Where the program's modules come from: the same ones as this process's, before any others."""
    return os.pathsep.join(filter(None, (str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH"))))


def _end(code: int) -> str:
    if code < 0:
        remedy = "it took more memory or time than it may"
        return f"was ended by {signal.Signals(-code).name}: {remedy}"
    return f"ended with code {code} and no answer"


def _answer_max(widths: tuple[int, ...]) -> int:
    numbers = sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))
    return 4 * numbers + 16 * len(widths) + _TEXT_MAX


def _limit(memory: int, answer_max: int) -> None:
    """Take no more than this from now on.

    Raises:
        ValueError, OSError: the system sets no such limits; then nothing is to be looked at.
    """
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: CPU_S_MAX,
        resource.RLIMIT_FSIZE: answer_max,
        resource.RLIMIT_NOFILE: FILES_MAX,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        # One more than is meant: at the hard limit of CPU time the signal would be a plain SIGKILL.
        ceiling = value + 1 if hard == resource.RLIM_INFINITY else min(value + 1, hard)
        resource.setrlimit(kind, (min(value, ceiling), ceiling))


def _checked(
    data: bytes, spec: ModelSpec, widths: tuple[int, ...], features: NDArray[np.uint8], logits: Floats
) -> Head:
    """The head of a model that is all that it should be."""
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        raise ForeignHeadError("is no ONNX model") from None
    model.DiscardUnknownFields()
    if model.SerializeToString(deterministic=True) != data:  # then what is looked at is what onnxruntime reads
        raise ForeignHeadError("holds fields that ONNX does not know, or is not written as ONNX's own library does")
    shapes = itertools.pairwise(widths)
    zero = Head(0, tuple((np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)) for shape in shapes))
    expected = graph_with(spec, zero)
    _check_operators(model, expected)
    head = _head_of(model, expected, zero)
    _check_rest(model, expected)
    try:
        (found,) = open_session(model).run(["logits"], {"features": features.astype(np.float32)})
    except Exception as error:  # onnxruntime's own have no common class
        raise ForeignHeadError(f"cannot be run: {str(error)[:_TEXT_MAX]}") from None
    check_logits(found, logits)
    return head


def _check_operators(model: ModelProto, expected: ModelProto) -> None:
    """No functions, no foreign domains, only the operators of our heads, no attribute that holds more than numbers."""
    if model.functions or model.training_info:
        raise ForeignHeadError("has functions or a graph for training; a head has none")
    for one in (*model.opset_import, *model.graph.node):
        if one.domain:
            raise ForeignHeadError(f"domain: {_short(one.domain)} is not ONNX's own")
    allowed = {node.op_type for node in expected.graph.node}
    for node in model.graph.node:
        if node.op_type not in allowed:
            raise ForeignHeadError(f"operator: {_short(node.op_type)} is none of a head: {', '.join(sorted(allowed))}")
        for attribute in node.attribute:
            if not {field.name for field, _ in attribute.ListFields()} <= _NUMBERS:
                raise ForeignHeadError(f"attribute: {_short(attribute.name)} holds more than numbers")


def _head_of(model: ModelProto, expected: ModelProto, shape: Head) -> Head:
    """The weights, which lie inside, in the shapes that the head has."""
    tensors = model.graph.initializer
    if model.graph.sparse_initializer or any(
        tensor.external_data or tensor.data_location != TensorProto.DEFAULT for tensor in tensors
    ):
        raise ForeignHeadError("tensors: some are sparse or lie in another file; write them into the model")
    found, due = ([_facts(tensor) for tensor in one.graph.initializer] for one in (model, expected))
    for index, facts in enumerate(due):
        if index >= len(found) or found[index] != facts:
            there = _short(str(found[index])) if index < len(found) else "not there"
            raise ForeignHeadError(f"tensors[{index}]: is {there}, must be {facts}")
    numbers = {tensor.name: tensor.raw_data for tensor in tensors}
    values = []
    for name, zeros in weights_of(shape).items():
        if len(numbers[name]) != zeros.nbytes:
            raise ForeignHeadError(f"tensors: {name} has {len(numbers[name])} bytes, must have {zeros.nbytes}")
        values.append(np.frombuffer(numbers[name], "<f4").astype(np.float32).reshape(zeros.shape))
    return Head(0, tuple(zip(values[::2], values[1::2], strict=True)))


def _check_rest(model: ModelProto, expected: ModelProto) -> None:
    """But for the weights, the model is ours, field for field."""
    bare = ModelProto()
    bare.CopyFrom(model)
    for one in (bare, expected):
        for tensor in one.graph.initializer:
            tensor.ClearField("raw_data")
    for there, due, place in ((bare.graph, expected.graph, "graph."), (bare, expected, "")):
        for field in due.DESCRIPTOR.fields:
            if getattr(there, field.name) != getattr(due, field.name):
                raise ForeignHeadError(f"{place}{field.name}: is not that of what `thermesh filters export` writes")


def _facts(tensor: TensorProto) -> tuple[str, str, tuple[int, ...]]:
    kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else "?"
    return tensor.name, kind, tuple(tensor.dims)


def _short(text: str) -> str:
    """For a message; protobuf gives bytes where a name is no UTF-8, and they are as good."""
    return repr(text[:40])


if __name__ == "__main__":
    main()
