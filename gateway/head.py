"""The head: the dense layers behind the mesh, in ONNX Runtime.

The graph takes its weights as inputs, so that a new head is swapped in between two cycles without a new session:

    features [batch, n] -> / 255 -> (append the maximum) -> Gemm, Relu ... -> Gemm -> logits [batch, 2]
    logits -> Softmax -> scores [batch, 2]
"""

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from gateway.model import CLASSES, Head, ModelError, ModelSpec
from protocol.fixed import ACTIVATION_MAX

# The newest that every onnxruntime we allow can run.
_OPSET = 17
_IR_VERSION = 8

Floats = NDArray[np.float32]


def known_features(features: NDArray[np.integer]) -> Floats:
    """Features as the head takes them: float32 0..255, with 0 for those that are missing (-1).

    A missing feature is a block that did not report, or had no unit to pool. Zero is what a unit gives that notices
    nothing: so silence neither raises an alarm nor looks like a value that the head never met while it was fitted.
    """
    return np.asarray(np.maximum(features, 0), np.float32)


class HeadRunner:
    """One session for all heads of a shape.

    Attributes:
        spec: the network it belongs to.
        revision: of the head that answers now.
    """

    def __init__(self, spec: ModelSpec, head: Head):
        """Build the session.

        Raises:
            ModelError: the head is not of this spec.
        """
        if head.widths[1:-1] != spec.hidden:
            raise ModelError(f"head: hidden units {head.widths[1:-1]} are not of spec {spec.name}: {spec.hidden}")
        self.spec = spec
        self._widths = head.widths
        self._session = open_session(graph(spec, head.widths))
        self.swap(head)

    @property
    def feature_len(self) -> int:
        """Features per cycle."""
        return self._widths[0] - self.spec.appends_maximum

    def swap(self, head: Head) -> None:
        """Answer with another head of the same shape from now on.

        Raises:
            ModelError: it has another shape.
        """
        if head.widths != self._widths:
            raise ModelError(f"head: widths {head.widths} do not fit {self._widths}; start a new runner")
        self.revision = head.revision
        self._weights = weights_of(head)

    def scores(self, features: NDArray[np.integer]) -> Floats:
        """How normal and how abnormal a cycle is.

        Args:
            features: [n] or [batch, n], 0..255, -1 where missing.

        Returns:
            float32 [batch, 2], 0..1; each row sums to 1.

        Raises:
            ModelError: not n features.
        """
        return self._run("scores", features)

    def logits(self, features: NDArray[np.integer]) -> Floats:
        """The scores before the softmax, which never saturate: features as above -> float32 [batch, 2]."""
        return self._run("logits", features)

    def _run(self, output: str, features: NDArray[np.integer]) -> Floats:
        batch = np.atleast_2d(known_features(features))
        if batch.shape[1:] != (self.feature_len,):
            raise ModelError(f"features: have the shape {features.shape}; there must be {self.feature_len} per cycle")
        (values,) = self._session.run([output], {"features": batch, **self._weights})
        return np.asarray(values, np.float32)


def graph(spec: ModelSpec, widths: tuple[int, ...]) -> ModelProto:
    """The dense layers as an ONNX model; widths as in `Head.widths`, the appended maximum counted among the inputs."""
    inputs = [_tensor("features", "batch", widths[0] - spec.appends_maximum)]
    nodes = [helper.make_node("Div", ["features", "full_scale"], ["scaled"])]
    value = "scaled"
    if spec.appends_maximum:
        nodes.append(helper.make_node("ReduceMax", [value], ["maximum"], axes=[1], keepdims=1))
        nodes.append(helper.make_node("Concat", [value, "maximum"], ["all"], axis=1))
        value = "all"
    last = len(widths) - 2
    for index in range(last + 1):
        inputs.append(_tensor(f"weights{index}", *widths[index : index + 2]))
        inputs.append(_tensor(f"bias{index}", widths[index + 1]))
        layer, value = _dense(index, value, "logits" if index == last else "")
        nodes += layer
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    outputs = [_tensor(name, "batch", CLASSES) for name in ("scores", "logits")]
    full_scale = helper.make_tensor("full_scale", TensorProto.FLOAT, [], [float(ACTIVATION_MAX)])
    body = helper.make_graph(nodes, f"head-{spec.name}", inputs, outputs, [full_scale])
    model = model_of(body)
    checker.check_model(model)
    return model


def graph_with(spec: ModelSpec, head: Head) -> ModelProto:
    """The dense layers as an ONNX model with their weights inside, as model files carry them; unchecked."""
    model = graph(spec, head.widths)
    del model.graph.input[1:]
    for name, values in weights_of(head).items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def weights_of(head: Head) -> dict[str, Floats]:
    """A head's numbers by the names that the graph has for them: weights0, bias0, ..."""
    return {
        f"{name}{index}": np.ascontiguousarray(values)
        for index, layer in enumerate(head.layers)
        for name, values in zip(("weights", "bias"), layer, strict=True)
    }


def model_of(body: GraphProto) -> ModelProto:
    """A graph as a model that every onnxruntime we allow can run; it is not checked yet."""
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def open_session(model: ModelProto, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """A session in the calling thread that keeps no core awake between its runs: 2.1 % CPU at 10 Hz, not 33.5 %.

    `options` may hold further settings; those of threads are made here.
    """
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _tensor(name: str, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _dense(index: int, value: str, logits: str) -> tuple[list[NodeProto], str]:
    """One layer: the last one ends in logits, the others in a Relu. Returns its nodes and the name of its output."""
    names = [value, f"weights{index}", f"bias{index}"]
    if logits:
        return [helper.make_node("Gemm", names, [logits])], logits
    summed, hidden = f"sum{index}", f"hidden{index}"
    return [helper.make_node("Gemm", names, [summed]), helper.make_node("Relu", [summed], [hidden])], hidden
