"""Trained face networks become ONNX files that InsightFace's code drives, weights in float16.

A pack has InsightFace's interfaces: SCRFD with key points, ArcFace, 106 landmarks, 68 points in 3D from which
InsightFace reads the angles of the head.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..datasets.expressions import SEVEN
from ..datasets.labels import expression_of
from ..landmarks import EXPRESSIONS
from ..writing import write as write_file
from .face_networks import ANGLE, DETECTOR_POOL, LANDMARK_POOL

# Taken from the detector's logits: of validation people 0.75 was the lowest score of a face, of what is none 0.71 the highest;
# 0.71 becomes InsightFace's threshold of 0.5.
CAUTION = 0.9
STEEPEST = 85.0  # degrees
SMALL = 64  # tensors with fewer values stay float32, those of fewer bytes in their model


class DetectorFile(nn.Module):
    """[1, 3, h, w] -> SCRFD's nine outputs: scores, boxes, key points, each for strides 8, 16, 32, two rows a cell.

    The second row of a cell never finds anything, and neither does stride 8: drawn faces are large.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        small = avg_pool2d(x, DETECTOR_POOL)
        none = avg_pool2d(small, 8 // DETECTOR_POOL)[:, :1].permute(0, 2, 3, 1).reshape(-1, 1) * 0
        scores, boxes, points = [torch.cat((none, none), 1).reshape(-1, 1)], [], []
        boxes.append(torch.cat([none] * 8, 1).reshape(-1, 4))
        points.append(torch.cat([none] * 20, 1).reshape(-1, 10))
        for level in self.network(small):
            rows = level.permute(0, 2, 3, 1).reshape(-1, 15)
            score = (rows[:, :1] - CAUTION).sigmoid()
            scores.append(torch.cat((score, score * 0), 1).reshape(-1, 1))
            boxes.append(torch.cat([rows[:, 1:5]] * 2, 1).reshape(-1, 4))
            points.append(torch.cat([rows[:, 5:]] * 2, 1).reshape(-1, 10))
        return *scores, *boxes, *points


class PointsFile(nn.Module):
    """[n, 3, 192, 192] -> the 106 points [n, 212], from -1 to 1 of the crop."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        points: Tensor = self.network(avg_pool2d(x, LANDMARK_POOL))[0]
        return points


class PoseFile(nn.Module):
    """[n, 3, 192, 192] -> 1103 points in 3D [n, 3309], of which the last 68 are InsightFace's mean face, turned.

    It is turned by the angles that the network reads, so that InsightFace, which fits the mean face to these points, reads
    them again: rotations around x (pitch), then y (yaw), then z (roll).
    """

    def __init__(self, network: nn.Module, mean_face: np.ndarray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean_face", torch.from_numpy(mean_face.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        points, angles, _ = self.network(avg_pool2d(x, LANDMARK_POOL))
        middle = points.view(-1, 106, 2)[:, 33:].mean(1)
        # At 90 degrees one turn begins to be read as three others.
        radians = (angles * ANGLE).clamp(-STEEPEST, STEEPEST) * (torch.pi / 180)
        a, b, c = (radians[:, i : i + 1] for i in range(3))
        mean_face: Any = self.mean_face
        fx, fy, fz = (mean_face[None, :, i] for i in range(3))
        y, z = fy * a.cos() - fz * a.sin(), fy * a.sin() + fz * a.cos()
        x, z = fx * b.cos() + z * b.sin(), z * b.cos() - fx * b.sin()
        x, y = x * c.cos() - y * c.sin(), x * c.sin() + y * c.cos()
        turned = torch.stack((0.6 * x + middle[:, :1], 0.6 * y + middle[:, 1:], 0.6 * z), 2).flatten(1)
        return torch.cat((torch.cat([turned * 0] * 16, 1)[:, : 3309 - 204], turned), 1)


class ExpressionFile(nn.Module):
    """[n, 3, 64, 64] -> logits in the order of HSEmotion's seven classes, which needs no naming."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.order = [EXPRESSIONS.index(expression_of(name)) for name in SEVEN]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits[:, self.order]


def onnx_of(network: nn.Module, name: str, shape: Sequence[int], outputs: Sequence[str], free: dict[int, str]) -> Any:
    """``network`` as an ONNX model with an input ``name`` of ``shape``; ``free``: its dimensions of any size."""
    import onnx

    data: Any = io.BytesIO()
    torch.onnx.export(
        network.eval(), (torch.zeros(*shape),), data, input_names=[name], output_names=list(outputs), opset_version=11,
        dynamic_axes={name: free} | ({output: {0: "n"} for output in outputs} if free else {}), dynamo=False,
    )  # fmt: skip
    model = onnx.load_from_string(data.getvalue())
    halve(model)
    onnx.checker.check_model(model)
    return model


def write_models(models: Mapping[str, Any], folder: Path, shared: str = "") -> list[Path]:
    """ONNX models by their files in ``folder``.

    ``shared``: a file beside them that holds all large tensors, each once (ONNX's external data), where one network serves
    several files.
    """
    from onnx.external_data_helper import set_external_data

    places: dict[bytes, int] = {}  # in the shared file
    size = 0
    for tensor in (tensor for model in models.values() for tensor in model.graph.initializer):
        values = tensor.raw_data
        if not shared or len(values) < SMALL:
            continue
        if values not in places:
            places[values], size = size, size + len(values)
        set_external_data(tensor, shared, places[values], len(values))
        tensor.ClearField("raw_data")
    if shared:
        write_file(folder / shared, b"".join(places))
    for file, model in models.items():
        write_file(folder / file, model.SerializeToString())
    return [folder / file for file in models]


def halve(model: Any) -> None:
    """Large float32 tensors of an ONNX model become float16, cast back where the graph begins."""
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALL:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], f"cast.{name}", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def mean_face() -> np.ndarray:
    """InsightFace's mean face of 68 points in 3D, [68, 3]."""
    from insightface.data import get_object

    shape: np.ndarray = get_object("meanshape_68.pkl")
    return shape


def export_faces(networks: dict[str, nn.Module], folder: Path) -> list[Path]:
    """The packs ``faces`` and ``judge`` of those networks of ``train_faces.LESSONS`` that are there, below ``folder``."""
    crop: tuple[Sequence[str], dict[int, str]] = (["fc1"], {0: "n"})
    nine = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in (8, 16, 32)]
    written: list[Path] = []
    if "detector" in networks:
        model = onnx_of(
            DetectorFile(networks["detector"]), "input.1", (1, 3, 640, 640), nine, {2: "height", 3: "width"}
        )
        written += write_models({"det_drawn.onnx": model}, folder / "faces")
    for before, pack, tail in (("", "faces", "drawn"), ("judge_", "judge", "judge")):
        if f"{before}recogniser" in networks:
            model = onnx_of(networks[f"{before}recogniser"], "input.1", (1, 3, 112, 112), ["identity"], {0: "n"})
            written += write_models({f"arcface_{tail}.onnx": model}, folder / pack)
        if f"{before}points" in networks:
            network, size = networks[f"{before}points"], (1, 3, 192, 192)
            models = {
                f"2d106_{tail}.onnx": onnx_of(PointsFile(network), "data", size, *crop),
                f"1k3d68_{tail}.onnx": onnx_of(PoseFile(network, mean_face()), "data", size, *crop),
            }
            written += write_models(models, folder / pack, f"points_{tail}.values")
    if "judge_expression" in networks:
        model = onnx_of(ExpressionFile(networks["judge_expression"]), "input", (1, 3, 64, 64), ["logits"], {0: "n"})
        written += write_models({"expression_judge.onnx": model}, folder / "judge")
    return written
