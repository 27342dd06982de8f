"""ONNX heads that nobody should take, drawn from a seed, in model files that are signed all the same."""

import hashlib
import itertools
import random
import struct

from onnx import AttributeProto, ModelProto, TensorProto, helper

from gateway.head import model_of

ENVELOPE = struct.Struct("<2sBB3I32s")
# As long as the largest head for the sites of these tests, and what its graph takes.
BYTES_MAX = 8_000
HUGE = (1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)
OTHER_OPERATORS = "Loop If Scan ConstantOfShape Expand Tile Range Identity MatMul Sigmoid Einsum Cast nothing"


def parts_of(data):
    """Filter set, head and golden vectors of a model file."""
    sizes = ENVELOPE.unpack_from(data)[3:6]
    ends = list(itertools.accumulate(sizes, initial=ENVELOPE.size + 64))
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def sealed(parts, key, sizes=None):
    """A model file of these parts, signed, whatever they are; `sizes` are what the envelope says of them."""
    body = b"".join(parts)
    facts = ENVELOPE.pack(b"TM", 1, 0, *(sizes or map(len, parts)), hashlib.sha256(body).digest())
    return facts + key.sign(facts) + body


def mutated(head, count, seed):
    """So many (name of the kind, bytes), every kind in turn; none of them is the head itself.

    Args:
        head: an ONNX model, in bytes.
        count: of mutations.
        seed: of all that they leave open.
    """
    found = []
    for number, (name, change) in zip(range(count), itertools.cycle(KINDS.items()), strict=False):
        rng = random.Random(f"{seed} {number}")
        model = ModelProto.FromString(head)
        data = change(model, rng)
        data = model.SerializeToString(deterministic=True) if data is None else data
        assert data != head, name
        found.append((name, data))
    return found


# Each changes the model that it is given, or returns other bytes.


def other_operator(model, rng):
    rng.choice(model.graph.node).op_type = rng.choice(OTHER_OPERATORS.split())


def bomb(model, rng):
    """What FACTS.md measured: a shape, and a tensor of it."""
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [rng.choice(HUGE), 1_000]))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["bomb"]))


def only_a_bomb(_model, rng):
    return bomb_of(rng.choice((1 << 29, 1 << 33)))


def bomb_of(count):
    """A model whose output has so many numbers, all of them 0."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [count])
    node = helper.make_node("ConstantOfShape", ["shape"], ["logits"])
    due = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    return model_of(helper.make_graph([node], "bomb", [], [due], [shape])).SerializeToString()


def expanding(model, rng):
    model.graph.initializer.append(helper.make_tensor("times", TensorProto.INT64, [2], [1 << 16, 1 << 16]))
    model.graph.node.append(helper.make_node(rng.choice(("Expand", "Tile")), ["logits", "times"], ["more"]))


def node_twice(model, rng):
    model.graph.node.append(rng.choice(model.graph.node))


def node_missing(model, rng):
    del model.graph.node[rng.randrange(len(model.graph.node))]


def nodes_shuffled(model, rng):
    nodes = [*model.graph.node]
    while nodes == [*model.graph.node]:
        rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def cycle(model, rng):
    """A node that takes what it, or one behind it, gives."""
    nodes = model.graph.node
    at = rng.randrange(len(nodes))
    nodes[at].input[0] = rng.choice(nodes[at:]).output[0]


def value_renamed(model, rng):
    names = "", "x" * 1_000, "\u202e", "features", "logits\nthermesh: fine"
    rng.choice(model.graph.node).output[0] = rng.choice(names)


def huge_shape(model, rng):
    del (tensor := rng.choice(model.graph.initializer)).dims[:]
    tensor.dims.extend(rng.choice(HUGE) for _ in range(rng.randint(1, 4)))


def negative_shape(model, rng):
    tensor = rng.choice([tensor for tensor in model.graph.initializer if tensor.dims])
    tensor.dims[0] = rng.choice((-1, 0, -(1 << 63)))


def transposed_shape(model, _rng):
    tensor = weights(model)[0]
    dims = tensor.dims[::-1]
    del tensor.dims[:]
    tensor.dims.extend(dims)


def huge_input(model, rng):
    model.graph.input[0].type.tensor_type.shape.dim[rng.randrange(2)].dim_value = rng.choice(HUGE)


def tensor_cut(model, rng):
    tensor = rng.choice(weights(model))
    tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data))]


def tensor_grown(model, rng):
    rng.choice(weights(model)).raw_data += bytes(rng.randint(1, 64))


def tensor_of_another_type(model, rng):
    rng.choice(weights(model)).data_type = rng.choice((0, 6, 7, 8, 10, 11, 16, 99))


def tensor_missing(model, rng):
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def tensor_twice(model, rng):
    model.graph.initializer.append(rng.choice(model.graph.initializer))


def tensor_in_two_fields(model, rng):
    rng.choice(weights(model)).float_data.append(1.0)


def external_data(model, rng):
    tensor = rng.choice(weights(model))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    location = rng.choice(("/etc/passwd", "../site-key.pem", "/dev/zero", "x" * 500))
    tensor.external_data.add(key="location", value=location)


def external_data_unsaid(model, rng):
    rng.choice(weights(model)).external_data.add(key="location", value="/dev/zero")


def sparse_tensor(model, _rng):
    model.graph.sparse_initializer.add(dims=[1 << 40, 1 << 20])


def not_finite(model, rng):
    tensor = rng.choice(weights(model))
    at = 4 * rng.randrange(len(tensor.raw_data) // 4)
    number = struct.pack("<f", rng.choice((float("nan"), float("inf"), float("-inf"))))
    tensor.raw_data = tensor.raw_data[:at] + number + tensor.raw_data[at + 4 :]


def other_weights(model, rng):
    tensor = weights(model)[0]
    tensor.raw_data = b"".join(struct.pack("<f", rng.uniform(-9, 9)) for _ in range(len(tensor.raw_data) // 4))


def overflowing_weights(model, _rng):
    for tensor in weights(model):
        tensor.raw_data = struct.pack("<f", 3e38) * (len(tensor.raw_data) // 4)


def subgraph(model, rng):
    body = ModelProto.FromString(model.SerializeToString()).graph  # protobuf dies of a graph that is put into itself
    rng.choice(model.graph.node).attribute.add(name="body", type=AttributeProto.GRAPH).g.CopyFrom(body)


def subgraphs_in_subgraphs(model, rng):
    """As many as protobuf's own library writes."""
    graph = helper.make_graph([], "innermost", [], [])
    for _ in range(rng.randint(2, 25)):
        node = helper.make_node("If", ["features"], ["more"])
        node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(graph)
        graph = helper.make_graph([node], "g", [], [])
    model.graph.node.append(graph.node[0])


def bottomless_subgraphs(model, rng):
    """Deeper than a parser of protobuf goes, so from bytes: model.graph.node.attribute.g.node ..."""
    inner = b""
    for _ in range(rng.choice((30, 40, 1_000))):
        inner = field(1, field(4, b"If") + field(5, field(6, inner)))
    return model.SerializeToString(deterministic=True) + field(7, inner)


def tensor_attribute(model, rng):
    attribute = rng.choice(model.graph.node).attribute.add(name="value", type=AttributeProto.TENSOR)
    attribute.t.CopyFrom(helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]))


def attribute_changed(model, rng):
    nodes = [node for node in model.graph.node if node.op_type in ("Softmax", "Concat", "ReduceMax")]
    attribute = rng.choice(nodes).attribute[0]
    attribute.i, attribute.ints[:] = rng.choice((0, 2, -1, 1 << 40)), [7] * len(attribute.ints)


def attribute_added(model, rng):
    rng.choice(model.graph.node).attribute.append(helper.make_attribute(rng.choice(("alpha", "transB")), 2))


def other_opset(model, rng):
    model.opset_import[0].version = rng.choice((0, 1, 7, 16, 18, 999, 1 << 62))


def no_opset(model, _rng):
    del model.opset_import[:]


def other_ir_version(model, rng):
    model.ir_version = rng.choice((0, 1, 7, 9, 10_000))


def foreign_domain(model, rng):
    domain = rng.choice(("com.microsoft", "ai.onnx.ml", "local"))
    rng.choice(model.graph.node).domain = domain
    model.opset_import.append(helper.make_opsetid(domain, 1))


def function(model, _rng):
    nodes, opsets = [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], nodes, opsets))


def training(model, _rng):
    model.training_info.add().algorithm.CopyFrom(model.graph)


def output_added(model, rng):
    model.graph.output.append(model.graph.output[rng.randrange(2)])
    model.graph.output[-1].name = rng.choice(("weights0", "sum0", "scores"))


def output_missing(model, rng):
    del model.graph.output[rng.randrange(2)]


def input_added(model, rng):
    shape = rng.choice(([], [1], [HUGE[2]] * 3))
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, shape))


def value_info(model, _rng):
    model.graph.value_info.append(helper.make_tensor_value_info("scaled", TensorProto.STRING, [HUGE[3]]))


def metadata(model, rng):
    rng.choice((model, model.graph, model.graph.node[0])).metadata_props.add(key="k", value="v" * 1_000)


def doc_string(model, rng):
    rng.choice((model, model.graph, *model.graph.node)).doc_string = "\x1b[2J\nthermesh: fine"


def unknown_field(model, rng):
    number = rng.randint(200, 1_000)
    return model.SerializeToString(deterministic=True) + varint(number << 3) + varint(rng.getrandbits(60))


def nothing_in_many_nodes(model, _rng):
    """Two bytes each, a hundred times as much once they are parsed."""
    for _ in range(BYTES_MAX // 8):
        model.graph.node.add()


def cut_short(model, rng):
    data = model.SerializeToString(deterministic=True)
    return data[: rng.randrange(len(data))]


def byte_damaged(model, rng):
    """One byte outside the weights, whose last bits golden vectors cannot tell."""
    data = model.SerializeToString(deterministic=True)
    places = [0] + [1] * (len(data) - 1)
    for tensor in weights(model):
        start = data.index(tensor.raw_data)
        places[start : start + len(tensor.raw_data)] = [0] * len(tensor.raw_data)
    at = rng.choice([at for at, free in enumerate(places) if free])
    return data[:at] + bytes((data[at] ^ rng.randint(1, 255),)) + data[at + 1 :]


def bytes_put_in(model, rng):
    data = model.SerializeToString(deterministic=True)
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]


def bytes_taken_out(model, rng):
    data = model.SerializeToString(deterministic=True)
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 8) :]


def bytes_twice(model, rng):
    data = model.SerializeToString(deterministic=True)
    start, end = sorted(rng.sample(range(len(data) + 1), 2))
    return data[:end] + data[start:end] + data[end:]


def noise(_model, rng):
    return rng.randbytes(rng.choice((1, 64, BYTES_MAX // 2)))


def nothing(_model, _rng):
    return b""


def weights(model):
    """The tensors with raw numbers: all but the constant 255."""
    return [tensor for tensor in model.graph.initializer if tensor.raw_data]


def field(number, data):
    """A field of protobuf that holds bytes or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number):
    """A number as protobuf writes it."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes((*data, number))


KINDS = {
    change.__name__.replace("_", " "): change
    for change in (
        *(other_operator, bomb, only_a_bomb, expanding, node_twice, node_missing, nodes_shuffled, cycle, value_renamed),
        *(huge_shape, negative_shape, transposed_shape, huge_input, tensor_cut, tensor_grown, tensor_of_another_type),
        *(tensor_missing, tensor_twice, tensor_in_two_fields, external_data, external_data_unsaid, sparse_tensor),
        *(not_finite, other_weights, overflowing_weights, subgraph, subgraphs_in_subgraphs, bottomless_subgraphs),
        *(tensor_attribute, attribute_changed, attribute_added, other_opset, no_opset, other_ir_version),
        *(foreign_domain, function, training, output_added, output_missing, input_added, value_info, metadata),
        *(doc_string, unknown_field, nothing_in_many_nodes, cut_short, byte_damaged, bytes_put_in, bytes_taken_out),
        *(bytes_twice, noise, nothing),
    )
}
