"""The numbers that are reported: their names in the field, what they say, and where they are defined."""

from __future__ import annotations

from dataclasses import dataclass

MULTIHUMAN = "MultiHuman-Testbench, NeurIPS 2025"
MULTIID = "MultiID-Bench, in WithAnyone, arXiv 2510.14975"
UMO = "UMO, arXiv 2509.06818"
DYNAMICID = "DynamicID, docs/evaluation.md"


@dataclass(frozen=True)
class Metric:
    """One number of a picture; a table shows its mean over pictures."""

    key: str  # in results.json
    label: str  # in tables
    better: str  # "higher", "lower", or "" where neither end is good
    text: str  # one sentence for readers
    source: str
    recognised: bool = True  # measured by each recogniser; else once for a picture
    share: bool = False  # a share of pictures or people, shown in percent


METRICS = (
    Metric(
        "matched", "Matched similarity", "higher",
        "How alike each person asked for and the face matched to them are, on average; a missing person counts 0.",
        MULTIHUMAN,
    ),
    Metric(
        "count", "Count accuracy", "higher",
        "Pictures with exactly as many faces as people were asked for.", MULTIHUMAN, share=True,
    ),
    Metric(
        "identified", "Nearest of N", "higher",
        "People whose face is most like them among everybody in the gallery; a missing person counts as wrong.",
        DYNAMICID, share=True,
    ),
    Metric(
        "place", "Place accuracy", "higher",
        "People whose face lies in the box that was asked for; a missing person counts as wrong.", DYNAMICID, share=True,
    ),
    Metric(
        "sim_gt", "Sim(GT)", "higher",
        "How alike the face and the same person in the ground-truth photo are; a missing person counts 0.", MULTIID,
    ),
    Metric(
        "sim_ref", "Sim(Ref)", "",
        "How alike the face and the reference are, matched by the ground truth: high values beside a low Sim(GT) are "
        "copies.", MULTIID,
    ),
    Metric(
        "copy_paste", "Copy-Paste", "lower",
        "1: the reference's very face; 0: as near to the ground truth as to the reference; -1: the ground truth.", MULTIID,
    ),
    Metric(
        "blending", "Blending", "lower",
        "How alike people and the faces of the others are: above what two strangers have, identities leak.", MULTIID,
    ),
    Metric(
        "id_conf", "ID-Conf", "higher",
        "How far the most similar face stands out from the next for each reference: (s1 - s2) / s1.", UMO,
    ),
    Metric(
        "expression", "Expression agreement", "higher",
        "People who show the expression asked for; a missing person counts as wrong.", DYNAMICID, False, True,
    ),
    Metric(
        "pose", "Pose agreement", "higher",
        "People whose head is turned as asked for; a missing person counts as wrong.", DYNAMICID, False, True,
    ),
    Metric("clip_t", "CLIP-T", "higher", "Cosine of the picture and its prompt in CLIP.", "CLIPScore, EMNLP 2021", False),
    Metric(
        "outside", "Change outside", "lower",
        "Mean difference (0..1) to the picture made without faces, where nobody is.", DYNAMICID, False,
    ),
)  # fmt: skip
KEYS = tuple(metric.key for metric in METRICS)
