"""Small INT8 graphs, written node by node, in which one thing at a time is as a rule wants it or not."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

UINT8, INT8 = np.dtype("uint8"), np.dtype("int8")


class Graph:
    """A graph of one input `images` (N, 3, 8, 8) that grows by nodes named after what they compute."""

    def __init__(self, shape=("N", 3, 8, 8), dtype=UINT8, zero=128, opset=20):
        self.nodes, self.stored, self.shape = [], [], shape
        self.dtype, self.zero, self.opset = dtype, zero, opset
        self.random = np.random.default_rng(0)

    def node(self, kind, *inputs, name, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def store(self, name, numbers):
        self.stored.append(numpy_helper.from_array(np.asarray(numbers), name))
        return name

    def held(self, value, scale=0.05, zero=None, dtype=None):
        """A value passed through Q/DQ."""
        dtype = self.dtype if dtype is None else dtype
        zero = (self.zero if dtype == self.dtype else 0) if zero is None else zero
        scale = np.asarray(scale, np.float32)
        grid = self.store(f"{value}.scale", scale), self.store(f"{value}.zero", np.full(scale.shape, zero, dtype))
        return self.node(
            "DequantizeLinear", self.node("QuantizeLinear", value, *grid, name=f"{value}.q"), *grid, name=f"{value}.d"
        )

    def weight(self, name, shape, axis=0, scale=0.01, per_channel=True, integers=INT8, middle=0):
        size = (shape[axis],) if per_channel else ()
        numbers = self.random.integers(-100, 100, shape) + middle
        grid = (
            self.store(f"{name}.scale", np.broadcast_to(np.float32(scale), size).copy()),
            self.store(f"{name}.zero", np.full(size, middle, integers)),
        )
        return self.node(
            "DequantizeLinear", self.store(f"{name}.int", numbers.astype(integers)), *grid, name=name, axis=axis
        )

    def bias(self, name, size, kind, scale):
        numbers = np.linspace(-1, 1, size, dtype=np.float32)
        if kind == "float":
            return self.store(name, numbers)
        grid = (
            self.store(f"{name}.scale", np.full(size, scale, np.float32)),
            self.store(f"{name}.zero", np.zeros(size, np.int32)),
        )
        integers = np.clip(np.rint(numbers / np.float64(scale)), -(2**31), 2**31 - 1).astype(np.int32)
        return self.node("DequantizeLinear", self.store(f"{name}.int", integers), *grid, name=name, axis=0)

    def conv(self, value, name, inputs=3, outputs=4, bias=None, bias_scale=0.05 * 0.01, **weight):
        read = [value, self.weight(f"{name}.w", (outputs, inputs, 3, 3), **weight)]
        read += [self.bias(f"{name}.b", outputs, bias, bias_scale)] if bias else []
        return self.node("Conv", *read, name=name, pads=[1, 1, 1, 1])

    def bytes(self, value, channels=4):
        """The file of a graph that pools `value` to logits."""
        self.node("GlobalAveragePool", value, name="pool")
        self.node("Flatten", "pool", name="logits")
        return self.file("logits", ["N", channels])

    def file(self, output, shape):
        batch = self.shape[0] if isinstance(self.shape[0], int) else shape[0]
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [batch, *shape[1:]])],
            self.stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
