"""35 edits of one face in one batch, against one edit: ``python benchmarks/edit.py``.

Published sizes (IMR of depth 1, key point encoder, CLIP-L's text encoder) with seeded weights. The 35 prompts are those
of the training set's grid. Parts: *text*, the prompts' features; *landmarks*, the key point encoder's; *IMR*. The edit
proper is what :func:`motion.edit_motion` does: landmarks and IMR. With ``--own-landmarks`` every target has its own.
"""

from __future__ import annotations

import functools
import types
import zlib

import full_size
import torch
from measure import DTYPES, Table, interleaved, milliseconds, parser, prepare, ratio, report

from dynamicid_core import motion, prompts
from dynamicid_core.networks.keypoints import KeypointEncoder
from dynamicid_core.networks.reconfigurator import Reconfigurator
from dynamicid_core.types import Face

EDITS = len(prompts.GRID_PROMPTS)
TARGET = 3.0
START, END = 49406, 49407  # CLIP's tokens


def main() -> None:
    found = parser(__doc__.split("\n")[0], rounds=11)
    found.add_argument("--own-landmarks", action="store_true", help="every target comes with landmarks of its own")
    options = found.parse_args()
    device = prepare(options)
    networks = make_networks(device, DTYPES[options.dtype])
    face, landmarks = make_face()
    texts = ["in a neutral expression, in front view", *prompts.GRID_PROMPTS]
    features = torch.randn(1 + EDITS, 768, generator=torch.Generator().manual_seed(3))

    def edit(count: int):
        own = landmarks[:count] if options.own_landmarks else None
        return lambda: motion.edit_motion(face, networks, features[:1], features[1 : 1 + count], own)

    calls = {"one edit": edit(1), f"{EDITS} edits": edit(EDITS)}
    times = interleaved(calls, "one edit", options.rounds, device)
    table = Table("Edits of one face in one batch", ("part", "one, ms", f"{EDITS}, ms", "ratio", "target"))
    one, many = (times[name] for name in calls)
    table.add("edit (landmarks and IMR)", milliseconds(one), milliseconds(many), ratio(many, one), TARGET)
    part_rows(table, networks, landmarks, features, options, device)
    text = make_text_encoder(device, DTYPES[options.dtype])
    calls = {"one": lambda: text(texts[:2]), "all": lambda: text(texts)}
    times = interleaved(calls, "one", max(3, options.rounds // 3), device)
    table.add(
        f"text (2 or {1 + EDITS} prompts)",
        *(milliseconds(t) for t in times.values()),
        ratio(times["all"], times["one"]),
        "",
    )
    report("edit", [table], options, device)


def make_networks(device: torch.device, dtype: torch.dtype):
    """IMR and key point encoder as hosts run them: float32 on the CPU in and out."""

    def running(network: torch.nn.Module):
        network = full_size.fill(network).to(device, dtype)

        def run(*inputs: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return network(*(x.to(device, dtype) for x in inputs)).float().cpu()

        return run

    return motion.MotionNetworks(running(Reconfigurator()), running(KeypointEncoder()), lambda texts: torch.empty(0))


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
        "IMR": lambda: networks.reconfigurator(tokens, *reconfiguring(features, EDITS)),
        "IMR 1": lambda: networks.reconfigurator(tokens, *reconfiguring(features, 1)),
    }
    times = interleaved(calls, "landmarks 1", options.rounds, device)
    for name in ("landmarks", "IMR"):
        one, many = times[f"{name} 1"], times[name]
        table.add(name, milliseconds(one), milliseconds(many), ratio(many, one), "")


def reconfiguring(features, count: int) -> tuple:
    """Landmark features of source and targets, text features of both; here the same random ones."""
    return features[:1], features[1 : 1 + count], features[:1], features[1 : 1 + count]


class Words:
    """A token for each word, as CLIP's tokenizer has for common ones; called as that is."""

    model_max_length = 77

    def __call__(self, texts: list[str], **kwargs) -> types.SimpleNamespace:
        rows = [[START, *(zlib.crc32(word.encode()) % START for word in text.split()), END] for text in texts]
        length = max(map(len, rows))
        return types.SimpleNamespace(input_ids=torch.tensor([row + [END] * (length - len(row)) for row in rows]))


def make_text_encoder(device: torch.device, dtype: torch.dtype):
    """CLIP-L's text encoder as the library runs it: prompts -> pooled features."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from dynamicid_core.hosts.diffusers import DynamicID

    config = CLIPTextConfig(
        vocab_size=END + 1, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768, bos_token_id=START, eos_token_id=END, pad_token_id=END,
    )  # fmt: skip
    encoder = full_size.fill(CLIPTextModel(config)).to(device, dtype)
    pipe = types.SimpleNamespace(tokenizer=Words(), text_encoder=encoder, _execution_device=device)
    return functools.partial(DynamicID.text_features, types.SimpleNamespace(pipe=pipe))


if __name__ == "__main__":
    main()
