"""See whether the people are in the picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicid_core import scoring
from .hints import hinted
from .progress import steps
from .sockets import CATEGORY, Cast, FaceAnalysis


class DynamicIDScoreFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDScoreFaces",
            display_name="Score Faces",
            category=CATEGORY,
            description="Compares a finished picture with the faces of the cast, and marks missing people and duplicates.",
            search_aliases=["face similarity", "identity score", "arcface", "likeness", "compare faces", "same person"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The finished picture, or a batch of them."),
                Cast.Input("cast", tooltip="Who should be in it."),
                FaceAnalysis.Input("face_analysis", tooltip="The detector that encoded the faces."),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.String.Output(display_name="report"),
                io.Float.Output(display_name="worst_similarity"),
            ],
        )

    @classmethod
    @hinted
    def execute(cls, image, cast, face_analysis) -> io.NodeOutput:
        from ..dynamicid_core.drawing import draw_scores
        from .pictures import preview_of, to_arrays, to_images

        pictures = to_arrays(image)
        scores = [scoring.score_image(cast, picture, face_analysis) for picture in steps(pictures)]
        drawn = to_images([draw_scores(p, s) for p, s in zip(pictures, scores, strict=True)])
        report = "\n\n".join(score.report() for score in scores)
        worst = min(score.worst for score in scores)
        return io.NodeOutput(drawn, report, worst, ui=preview_of(cls, drawn).as_dict() | {"text": [report]})


NODES = [DynamicIDScoreFaces]
