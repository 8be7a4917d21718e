"""A stand-in for InsightFace's model pack buffalo_l: small ONNX files that drive InsightFace's real code.

The detector looks for patches of skin colour with darker eyes and mouth, or with nothing around them; it finds most
frontal faces of a photo, and some hands. The recogniser is a random projection of the aligned face's colours: the
same face gets nearly the same identity, another face another one. Landmarks and pose are a mean face that a random
projection of the picture bends within plausible bounds; a mirrored picture gets the opposite yaw.

Places in a face are given in *face units*: (u, v) run from -1 to 1 over a square around the face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynamicid_core.types import DynamicIDError

from .face_shape import face_shape, shape_modes

MARK = "dynamicid stand-in"  # every file's producer, near its beginning

STRIDES = (8, 16, 32)
# Widths of the faces that each stride looks for, in strides; the two anchors of a cell share them.
OCTAVE = (4.0, 4.76, 5.66, 6.73)
FACE_WIDTHS = {8: OCTAVE, 16: OCTAVE, 32: (*OCTAVE, 8.0, 9.5, 11.3, 13.5)}
CELLS = 4  # cells of a stride's grid in one stride
BOX = (0.42, 0.52)  # half width and half height of a face's box, in face widths
KEYPOINTS = ((-0.38, -0.2), (0.38, -0.2), (0.0, 0.15), (-0.28, 0.54), (0.28, 0.54))  # face units
WINDOW = 1.5  # side of a filter's window, in face widths

# How the detector weighs what it sees: a small network, fitted once to the seven faces of InsightFace's bundled group
# photo and scikit-image's astronaut. Rows: share of skin in the face, above, left, right and below it; in the eyes,
# between them, in the cheeks, mouth, chin and forehead; lightness of these eight places against the face's; one.
HIDDEN = (
    (-0.04, 0.80, -0.28, -0.02),
    (0.36, -0.31, 1.38, 0.73),
    (-0.07, -0.37, -0.89, 1.31),
    (0.34, -0.04, -0.74, 1.25),
    (0.99, -0.46, -0.65, 0.31),
    (-0.42, 0.48, 0.71, -0.70),
    (0.05, 0.61, 0.76, -0.65),
    (0.39, -0.05, 0.04, 0.33),
    (-0.47, 0.31, 0.73, 0.71),
    (-0.44, 0.06, 0.69, 0.73),
    (-0.02, 1.12, -1.20, 0.33),
    (0.20, -0.03, -0.83, 0.72),
    (1.04, 0.62, -0.11, -0.19),
    (-0.28, 0.06, -0.02, 0.22),
    (-0.54, -0.18, -0.13, 0.19),
    (-0.24, 0.34, -0.10, -0.31),
    (-0.17, 0.70, 0.10, 0.16),
    (-0.55, 0.46, 0.08, 0.14),
    (0.74, 0.40, -0.04, 0.51),
    (0.55, 0.08, 0.25, -0.58),
    (-0.30, 0.69, 0.07, -0.15),
    (0.54, -0.03, -0.17, -1.74),
)
OUTPUT = (-2.23, 2.24, -2.82, -3.23)
OUTPUT_BIAS = -5.28


# --- ONNX -------------------------------------------------------------------------------------------------------------


class _Graph:
    """Collects nodes and constants; every method call ``graph.Op(inputs, attribute=...)`` adds a node.

    Nodes are named ``n0_Op``: InsightFace takes a model whose first nodes are *named* Sub or Mul for one that
    normalises its own input.
    """

    def __init__(self) -> None:
        self.nodes, self.constants = [], []

    def constant(self, values) -> str:
        from onnx import numpy_helper

        values = np.asarray(values)
        values = values.astype(np.float32) if values.dtype.kind == "f" else values.astype(np.int64)
        self.constants.append(numpy_helper.from_array(values, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def __getattr__(self, op: str):
        from onnx import helper

        def add(*inputs, output: str = "", **attributes) -> str:
            names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
            name = f"n{len(self.nodes)}_{op}"
            self.nodes.append(helper.make_node(op, names, [output or name], name=name, **attributes))
            return output or name

        return add

    def save(self, path: Path, name: str, shape: list, outputs: dict[str, list]) -> None:
        """``name`` and ``shape`` of the input, ``outputs``: name -> shape; strings are free sizes."""
        from onnx import TensorProto, checker, helper, save

        given = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
        graph = helper.make_graph(self.nodes, path.stem, [given], made, self.constants)
        # Opset 11 and IR 6 are what the real packs use, so that any onnxruntime runs them.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], producer_name=MARK)
        model.ir_version = 6
        checker.check_model(model)
        save(model, str(path))


def _skin(g: _Graph, rgb: str) -> str:
    """[1, 3, h, w] in 0..1 -> [1, 1, h, w]: how much each pixel looks like skin, as a product of five soft limits."""
    limits = (  # red, green, blue, constant, steepness
        (1, 0, 0, -0.70, 40),  # light
        (1, -1.06, 0, -0.01, 60),  # reddish,
        (-1, 2.1, 0, 0, 60),  # but not red
        (0, 1, -0.98, 0, 60),  # yellowish,
        (0, -1, 1.62, 0, 60),  # but not orange
    )
    table = np.array(limits, dtype=np.float64)
    weight, bias = table[:, :3] * table[:, 4:], table[:, 3] * table[:, 4]
    soft = g.Sigmoid(g.Conv(rgb, weight[..., None, None], bias))
    return g.ReduceProd(soft, axes=[1], keepdims=1)


def _filters(cells: float) -> np.ndarray:
    """Averages over 13 parts of a face of ``cells`` cells: [13, k, k], rows as in ``HIDDEN``."""
    k = round(cells * WINDOW) | 1
    place = (np.arange(k) - k // 2) / (cells / 2)
    v, u = np.meshgrid(place, place, indexing="ij")
    ring = ((u / 0.85) ** 2 + (v / 1.08) ** 2 > 1) & ((u / 1.35) ** 2 + (v / 1.45) ** 2 < 1)
    side = ring & (abs(v + 0.05) < 0.65)
    patches = ((-0.38, -0.2, 0.24, 0.13), (0.38, -0.2, 0.24, 0.13), (0, -0.15, 0.12, 0.2), (-0.42, 0.2, 0.2, 0.16))
    patches += ((0.42, 0.2, 0.2, 0.16), (0, 0.55, 0.3, 0.1), (0, 0.8, 0.3, 0.1), (0, -0.6, 0.4, 0.14))
    parts = [(u / 0.7) ** 2 + (v / 0.9) ** 2 < 1, ring & (v < -0.6), side & (u < -0.45), side & (u > 0.45)]
    parts += [ring & (v > 0.75) & (abs(u) < 0.5)]
    parts += [(abs(u - x) < a) & (abs(v - y) < b) for x, y, a, b in patches]
    return np.stack([part / part.sum() for part in parts])


def _faceness(g: _Graph, maps: str, width: float) -> str:
    """``maps`` [3, 1, h, w] (skin, lightness, its square) -> logits [1, 1, h / 4, w / 4] for faces of one width."""
    weight = _filters(width * CELLS)[:, None]
    means = g.Conv(maps, weight, strides=[CELLS, CELLS], pads=[weight.shape[-1] // 2] * 4)  # [3, 13, ., .]
    skin, light, square = (g.Slice(means, [i], [i + 1], [0]) for i in range(3))

    def parts(x: str, start: int, end: int) -> str:
        return g.Slice(x, [start], [end], [1])

    face = parts(skin, 0, 1)
    mean = parts(light, 0, 1)
    variance = g.Relu(g.Sub(parts(square, 0, 1), g.Mul(mean, mean)))
    contrast = g.Div(g.Sub(parts(light, 5, 13), mean), g.Sqrt(g.Add(variance, np.array(0.004))))
    features = g.Concat(skin, contrast, axis=1)  # [1, 21, ., .]
    hidden = np.array(HIDDEN)
    layer = g.Relu(g.Conv(features, hidden[:-1].T[..., None, None], hidden[-1]))
    seen = g.Conv(layer, np.array(OUTPUT)[None, :, None, None], np.array([OUTPUT_BIAS]))
    gate = g.Mul(g.Relu(g.Sub(np.array(0.42), face)), np.array(30.0))  # too little skin for a face
    around = g.ReduceMax(parts(skin, 1, 5), axes=[1], keepdims=1)
    alone = g.Mul(g.Sub(g.Sub(face, around), np.array(0.78)), np.array(8.0))  # a plain patch with nothing around it
    return g.Max(g.Sub(seen, gate), alone)


def _anchor(g: _Graph, logits: list[str], widths: tuple[float, ...]) -> tuple[str, str]:
    """The best logit of several widths, and their mean by odds, in strides, both [1, 1, h, w]."""
    stacked = g.Concat(*logits, axis=1)
    odds = g.Exp(stacked)
    width = g.Div(g.Conv(odds, np.array(widths)[None, :, None, None]), g.ReduceSum(odds, axes=[1], keepdims=1))
    return g.ReduceMax(stacked, axes=[1], keepdims=1), width


def _rows(g: _Graph, pair: list[str], channels: int, output: str) -> None:
    """Two anchors' maps [1, channels, h, w] -> [h * w * 2, channels], as SCRFD orders its outputs."""
    flat = [g.Reshape(g.Transpose(x, perm=[0, 2, 3, 1]), [-1, 1, channels]) for x in pair]
    g.Reshape(g.Concat(*flat, axis=1), [-1, channels], output=output)


def _write_detection(path: Path) -> None:
    g = _Graph()
    rgb = g.Add(g.Mul("input.1", np.array(128 / 255)), np.array(0.5))  # undo (x - 127.5) / 128
    light = g.Conv(rgb, np.array([0.299, 0.587, 0.114])[None, :, None, None])
    skin = _skin(g, rgb)
    names = {8: ("448", "451", "454"), 16: ("471", "474", "477"), 32: ("494", "497", "500")}
    sides = np.array([BOX[0], BOX[1], BOX[0], BOX[1]])[None, :, None, None]
    points = np.array(KEYPOINTS).reshape(1, 10, 1, 1) / 2
    for stride in STRIDES:
        pool = {"kernel_shape": [stride // CELLS] * 2, "strides": [stride // CELLS] * 2}
        cells = [g.AveragePool(x, **pool) for x in (skin, light)]
        maps = g.Concat(*cells, g.Mul(cells[1], cells[1]), axis=0)  # [3, 1, ., .]
        widths = FACE_WIDTHS[stride]
        half = len(widths) // 2
        logits = [_faceness(g, maps, width) for width in widths]
        anchors = [_anchor(g, logits[:half], widths[:half]), _anchor(g, logits[half:], widths[half:])]
        score, box, keypoints = names[stride]
        _rows(g, [g.Sigmoid(logit) for logit, _ in anchors], 1, score)
        _rows(g, [g.Mul(width, sides) for _, width in anchors], 4, box)
        _rows(g, [g.Mul(width, points) for _, width in anchors], 10, keypoints)
    outputs = {names[s][kind]: [f"n{s}", size] for kind, size in enumerate((1, 4, 10)) for s in STRIDES}
    g.save(path, "input.1", [1, 3, "height", "width"], outputs)


# What the recogniser looks at: a channel's weights, and its mean and deviation in faces. The weights are of blue, green and
# red, in which order the published pipeline's photos reach it (docs/method.md, section 1).
COLORS = (
    ((1, -1, 0), -0.25, 0.13),
    ((0, 1, -1), -0.31, 0.22),
    ((1 / 3, 1 / 3, 1 / 3), 0.1, 0.43),
)
BINS = 12


def _write_recognition(path: Path, rng: np.random.Generator) -> None:
    """Histograms of colours in 3x3 parts of the face, less those of faces in general, at random angles.

    Histograms stand a face box that is a little off better than pixels do.
    """
    weights, centers, common = [], [], []
    for channel, mean, deviation in COLORS:
        reach = 1.0 if sum(channel) else 0.7
        bins, sharp = np.linspace(-reach, reach, BINS), 0.08
        spread = sharp**2 + 2 * deviation**2
        weights += [np.array(channel) / sharp] * BINS
        centers += list(-bins / sharp)
        common += list(sharp / np.sqrt(spread) * np.exp(-((bins - mean) ** 2) / spread))  # its mean over a normal law
    g = _Graph()
    distance = g.Conv("input.1", np.stack(weights)[..., None, None], np.array(centers))
    near = g.Exp(g.Neg(g.Mul(distance, distance)))
    share = g.AveragePool(near, kernel_shape=[37, 37], strides=[37, 37])  # [n, 36, 3, 3]
    own = g.Flatten(g.Sub(share, np.array(common)[None, :, None, None]))
    unit = g.Div(own, g.Add(g.ReduceL2(own, axes=[1], keepdims=1), np.array(1e-3)))
    g.MatMul(unit, rng.standard_normal((len(common) * 9, 512)), output="683")
    g.save(path, "input.1", ["n", 3, 112, 112], {"683": ["n", 512]})


def _motion(g: _Graph, rng: np.random.Generator, limits: dict[str, float]) -> str:
    """The picture [n, 3, 192, 192] -> [n, modes]: how much of each, from -limit to limit; the first is odd in x."""
    small = g.AveragePool("data", kernel_shape=[16, 16], strides=[16, 16])  # [n, 3, 12, 12]
    flat = g.Flatten(small)
    centered = g.Sub(flat, g.ReduceMean(flat, axes=[1], keepdims=1))
    unit = g.Div(centered, g.Add(g.ReduceL2(centered, axes=[1], keepdims=1), np.array(1e-3)))
    weight = 0.4 * rng.standard_normal((3, 12, 12, len(limits)))
    weight[..., 0] -= weight[:, :, ::-1, 0].copy()  # odd: a mirrored picture gets the opposite
    weight[..., 1:] += weight[:, :, ::-1, 1:].copy()
    return g.Mul(g.Tanh(g.MatMul(unit, weight.reshape(432, -1))), np.array(list(limits.values())))


IN_CROP = 0.64  # a face unit in the crop that landmark models get: the box in 2/3 of it, coordinates from -1 to 1


def _write_landmarks(path: Path, seed: int) -> None:
    g = _Graph()
    limits = {"yaw": 0.15, "gap": 0.12, "smile": 0.08, "raise": 0.06, "slope": 0.03, "lids": 0.02}
    amounts = _motion(g, np.random.default_rng([seed, 2]), limits)
    modes = np.stack([shape_modes()[name] for name in limits]).reshape(len(limits), 212)
    bend = g.MatMul(amounts, modes * IN_CROP)
    g.Add(bend, face_shape().reshape(1, 212) * IN_CROP, output="fc1")
    g.save(path, "data", ["n", 3, 192, 192], {"fc1": ["n", 212]})


def _write_pose(path: Path, seed: int) -> None:
    """The 68 points of InsightFace's mean face in 3D, turned a little; rotations add up as they are small."""
    from insightface.data import get_object

    g = _Graph()
    limits = {"yaw": 0.5, "pitch": 0.25}  # radians
    amounts = _motion(g, np.random.default_rng([seed, 2]), limits)
    mean = get_object("meanshape_68.pkl") * 0.9
    x, y, z = mean.T
    turns = np.stack([np.stack([z, 0 * y, -x], -1), np.stack([0 * x, -z, y], -1)]).reshape(2, 204)
    place = (mean + np.array((0, 0.16, 0))).reshape(1, 204)  # its eyes on those of the 106 points
    bend = g.Add(g.MatMul(amounts, turns), place)
    # The real model has 1103 points, of which InsightFace takes the last 68.
    rest = g.Mul(g.Gather(bend, np.zeros(3309 - 204, dtype=np.int64), axis=1), np.array(0.0))
    g.Concat(rest, bend, axis=1, output="fc1")
    g.save(path, "data", ["n", 3, 192, 192], {"fc1": ["n", 3309]})


def write_detector_pack(folder: str | Path, seed: int = 0) -> dict[str, Path]:
    """Write det_10g.onnx, w600k_r50.onnx, 2d106det.onnx and 1k3d68.onnx into ``folder``; returns their paths by name.

    About 2.5 MB. Needs the packages onnx and insightface. ``seed`` decides what the recogniser and the landmark models
    see in a picture; the detector does not depend on it. The same seed gives the same files.
    Raises DynamicIDError, before anything is written, if a file that is no stand-in bears one of the names.
    """
    folder = Path(folder)
    paths = {name: folder / f"{name}.onnx" for name in ("det_10g", "w600k_r50", "2d106det", "1k3d68")}
    for path in paths.values():
        if path.exists() and MARK.encode() not in path.read_bytes()[:256]:
            raise DynamicIDError(f"{path} is not a stand-in, so it stays. Give another folder for the stand-in models.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_detection(paths["det_10g"])
    _write_recognition(paths["w600k_r50"], np.random.default_rng([seed, 1]))
    _write_landmarks(paths["2d106det"], seed)
    _write_pose(paths["1k3d68"], seed)
    return paths
