"""35 edits of one face in one batch, against one edit: ``python benchmarks/edit.py``.

Published sizes (IMR of depth 1, key point encoder, CLIP-L's text encoder) with seeded weights. The 35 prompts are those
of the training set's grid. Parts: *text*, the prompts' features; *landmarks*, the key point encoder's; *IMR*. The edit
proper is what :func:`motion.edit_motion` does: landmarks and IMR. With ``--own-landmarks`` every target has its own.
"""

from __future__ import annotations

import types

import full_size
import torch
from measure import DTYPES, Inside, Table, interleaved, milliseconds, parser, prepare, ratio, report

from dynamicid_core import motion
from dynamicid_core.networks.keypoints import KeypointEncoder
from dynamicid_core.networks.reconfigurator import Reconfigurator
from dynamicid_core.types import Face

EDITS = len(motion.GRID_PROMPTS)
TARGET = 3.0


def main() -> None:
    found = parser(__doc__.split("\n")[0], rounds=11)
    found.add_argument("--own-landmarks", action="store_true", help="every target comes with landmarks of its own")
    options = found.parse_args()
    device = prepare(options)
    networks = make_networks(device, DTYPES[options.dtype])
    face, landmarks = make_face()
    prompts = ["in a neutral expression, in front view", *motion.GRID_PROMPTS]
    features = torch.randn(1 + EDITS, 768, generator=torch.Generator().manual_seed(3))

    def edit(count: int):
        own = landmarks[:count] if options.own_landmarks else None
        return lambda: motion.edit_motion(face, networks, features[:1], features[1 : 1 + count], own)

    calls = {"one edit": edit(1), f"{EDITS} edits": edit(EDITS)}
    inside = Inside((motion, "motion_features"))
    with inside:
        times = interleaved(calls, "one edit", options.rounds, device)
    table = Table("Edits of one face in one batch", ("part", "one, ms", f"{EDITS}, ms", "ratio", "target"))
    one, many = (times[name] for name in calls)
    table.add("edit (landmarks and IMR)", milliseconds(one), milliseconds(many), ratio(many, one), TARGET)
    part_rows(table, networks, landmarks, features, options, device)
    text = make_text_encoder(device, DTYPES[options.dtype])
    calls = {"one": lambda: text(prompts[:2]), "all": lambda: text(prompts)}
    times = interleaved(calls, "one", max(3, options.rounds // 3), device)
    table.add(
        f"text (2 or {1 + EDITS} prompts)",
        *(milliseconds(t) for t in times.values()),
        ratio(times["all"], times["one"]),
        "",
    )
    report("edit", [table], options, device)


def make_networks(device: torch.device, dtype: torch.dtype):
    reconfigurator, keypoints = full_size.fill(Reconfigurator()), full_size.fill(KeypointEncoder())
    return types.SimpleNamespace(
        reconfigurator=reconfigurator.to(device, dtype), keypoint_encoder=keypoints.to(device, dtype)
    )


def make_face() -> tuple[Face, torch.Tensor]:
    """A face, and landmarks [35, 106, 2] of others."""
    generator = torch.Generator().manual_seed(1)
    tokens, nulls = torch.randn(2, 1, 4, 768, generator=generator)
    landmarks = torch.rand(1 + EDITS, 106, 2, generator=generator) * 0.8 + 0.1
    return Face(tokens, nulls, "benchmark", landmarks=landmarks[0]), landmarks[1:]


def part_rows(table: Table, networks, landmarks, features, options, device) -> None:
    """The two parts of an edit by themselves."""
    count = EDITS if options.own_landmarks else 1
    tokens = torch.randn(1, 4, 768, generator=torch.Generator().manual_seed(4))
    calls = {
        "landmarks 1": lambda: motion.motion_features(networks.keypoint_encoder, landmarks[:1]),
        "landmarks": lambda: motion.motion_features(networks.keypoint_encoder, landmarks[:count]),
        "IMR": lambda: motion.edit_tokens(networks.reconfigurator, tokens, *reconfiguring(features, EDITS)),
        "IMR 1": lambda: motion.edit_tokens(networks.reconfigurator, tokens, *reconfiguring(features, 1)),
    }
    times = interleaved(calls, "landmarks 1", options.rounds, device)
    for name in ("landmarks", "IMR"):
        one, many = times[f"{name} 1"], times[name]
        table.add(name, milliseconds(one), milliseconds(many), ratio(many, one), "")


def reconfiguring(features, count: int) -> tuple:
    """Landmark features of source and targets, text features of both; here the same random ones."""
    return features[:1], features[1 : 1 + count], features[:1], features[1 : 1 + count]


def make_text_encoder(device: torch.device, dtype: torch.dtype):
    """CLIP-L's text encoder as diffusers runs it: prompts -> pooled features."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from dynamicid_core.standins.pipeline import make_tokenizer

    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768, max_position_embeddings=77, eos_token_id=513, bos_token_id=512, pad_token_id=513,
    )  # fmt: skip
    encoder, tokenizer = full_size.fill(CLIPTextModel(config)).to(device, dtype), make_tokenizer()

    def encode(prompts: list[str]) -> torch.Tensor:
        tokens = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return encoder(tokens.input_ids.to(device)).pooler_output.float().cpu()

    return encode


if __name__ == "__main__":
    main()
