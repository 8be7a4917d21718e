"""Semantic-Activated Attention as functions of tensors and numbers (docs/method.md, section 3).

What depends on the faces alone is packed once (:func:`pack_cast`), what depends on regions once for each grid
(:func:`score_bias`, :func:`gate_terms`); a step then costs one dot product for each query (the gate), one small fused
attention over the face tokens, and one fused multiply-add. Gradients flow through all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .networks.saa import SAAModule, Site
from .regions import RegionWeights
from .types import Cast, DynamicIDError, Person

# Face tokens are padded to a multiple of this with invisible ones: fused kernels want aligned masks and take their
# slow paths for a handful of keys (measured: 2.4 times faster for 8 keys on a CPU).
TOKEN_MULTIPLE = 16

# The gate jumps at its threshold; a value that misses it by rounding alone counts as reaching it. Otherwise two correct
# orders of summation would give different pictures.
ROUNDING = 1e-6

LEAST_HEAD = 16  # channels of a head below which a CPU's matrix products are slow

# Where a row's activations (of a probe of length 1) differ by less, their places shrink with the difference, down to 0
# where all are equal. Keeps the gate and its gradient finite.
LEAST_EXTENT = 1e-6


def padded(tokens: int) -> int:
    """The length M of the packed token axis for so many face tokens (of all people)."""
    return -(-tokens // TOKEN_MULTIPLE) * TOKEN_MULTIPLE


def pack_faces(keys: Tensor, values: Tensor, people: Sequence[Person]) -> Tensor:
    """Everything that one cross attention needs of the faces, in one tensor.

    ``keys``, ``values`` [R, tokens of all people, C]: for each role (null tokens, face tokens, of each frame) those of all
    people, one after another. Returns [R, 2 * M + 1, C] (M of :func:`padded`): the keys, scaled by each face's ``mix``; the
    values, scaled by each person's weight; and the probe, whose product with a query is the query's activation.
    The activation is the sum of the scores over heads, people and tokens, hence one product with the sum of all keys
    (unscaled, as published). Only its place between its extremes counts, so the probe is given length 1, which
    keeps half precision in range.
    """
    counts = [person.face.tokens.shape[1] for person in people]
    mix = [f for p, n in zip(people, counts, strict=True) for f in p.face.mix for _ in range(n // len(p.face.mix))]
    weight = [p.weight for p, n in zip(people, counts, strict=True) for _ in range(n)]
    probe = face_probe(keys)
    keys = keys * torch.tensor(mix).to(keys)[:, None]
    values = values * torch.tensor(weight).to(values)[:, None]
    return packed(keys, values, probe)


def face_probe(keys: Tensor) -> Tensor:
    """The direction of a query that the faces activate most: keys [R, tokens, C] -> [R, 1, C], of length 1."""
    return torch.nn.functional.normalize(keys.sum(1, keepdim=True), dim=-1)


def packed(keys: Tensor, values: Tensor, probe: Tensor) -> Tensor:
    """Keys and values [R, tokens, C], both padded, and the probe [R, 1, C], one after another: [R, 2 * M + 1, C]."""
    pad = keys.new_zeros(len(keys), padded(keys.shape[1]) - keys.shape[1], keys.shape[2])
    return torch.cat((keys, pad, values, pad, probe), dim=1)


def face_keys_values(site: Site, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What one cross attention makes of face tokens [R, tokens, 768]: keys and values, [R, tokens, C] each.

    Computed in the dtype and on the device of the tokens, to which the weights are brought.
    """
    return tokens @ site.to_k_ip.weight.to(tokens).T, tokens @ site.to_v_ip.weight.to(tokens).T


def pack_cast(saa: SAAModule, cast: Cast) -> tuple[Tensor, ...]:
    """:func:`pack_faces` for every cross attention, in checkpoint order: [1 + F, 2 * M + 1, C] each: the null tokens, then the
    face tokens of each frame.

    Computed in the dtype and on the device of the faces' tokens, to which the weights are brought.
    Raises DynamicIDError for faces whose tokens do not fit the weights, and for values that half precision cannot hold.
    """
    for person in cast.people:
        width, wanted = person.face.tokens.shape[-1], saa.cross_sites[0].sizes.context
        if width != wanted:
            raise DynamicIDError(
                f"A face has tokens of width {width}, but this DynamicID file needs {wanted}. "
                "Encode the photo again with the loaded file."
            )
    null = torch.cat([person.face.uncond_tokens for person in cast.people], dim=1)
    shown = torch.cat([person.face.tokens_of(cast.frames) for person in cast.people], dim=1)
    tokens = torch.cat((null, shown))  # [1 + F, all tokens, 768]
    made = tuple(pack_faces(*face_keys_values(site, tokens), cast.people) for site in saa.cross_sites)
    largest = torch.stack([faces.detach().abs().amax() for faces in made]).amax()  # NaN where there is one
    if not largest <= torch.finfo(torch.float16).max:
        raise DynamicIDError(
            f"These faces and the DynamicID weights give values of {float(largest):.3g}, which half precision does not hold: "
            "pictures would turn black. Encode the photos again, or get the weights again."
        )
    return made


def score_bias(visible: Tensor, counts: Sequence[int]) -> Tensor:
    """What is added to the scores: the logarithm of each person's visibility, for each of that person's tokens.

    ``visible`` [F, P, N] in 0..1, ``counts``: tokens of each person. Returns [F, 1, N, M]. Equal visibilities share, 0
    hides, and so does padding.
    """
    bias = visible.log().repeat_interleave(torch.tensor(counts), dim=1)  # [F, tokens, N]
    out = bias.new_full((len(bias), padded(bias.shape[1]), bias.shape[2]), float("-inf"))
    out[:, : bias.shape[1]] = bias
    return out.transpose(1, 2)[:, None].contiguous()  # [F, 1, N, M]


def gate_terms(weights: RegionWeights, layout_strength: float) -> Tensor:
    """What regions do to the gate, ``gate * scale + shift``: [F, 2, 2, N], without and with the layout boost.

    With the boost's strength ``s`` and a cell's ``inside``, ``boosted`` and ``reach`` of :class:`regions.RegionWeights`, the
    boosted gate is ``reach * g * (inside + (1 - inside) / (1 + s)) + s * boosted``: in a region ``g + s``, outside all of
    them ``g / (1 + s)``, as published, and ``g`` for people without a region. ``s`` counts as 0 in a frame without regions.
    """
    s = layout_strength * (weights.boosted > 0).any(-1, keepdim=True).float()  # [F, 1]
    plain = torch.stack((weights.reach, torch.zeros_like(weights.reach)), dim=1)  # [F, 2, N]
    scale = weights.inside + (1 - weights.inside) / (1 + s)
    boosted = torch.stack((scale * weights.reach, s * weights.boosted), dim=1)
    return torch.stack((plain, boosted), dim=1)


def acting_terms(terms: Tensor, boost: Tensor, strength: Tensor) -> Tensor:
    """Scale and shift of the gate in one call of the model: [B, 2, N].

    ``terms`` [B or 1, 2, 2, N] of :func:`gate_terms`; ``boost`` [B] in 0..1 says whether the layout boost acts;
    ``strength`` [B] scales the row.
    """
    return torch.lerp(terms[:, 0], terms[:, 1], boost[:, None, None]) * strength[:, None, None]


class SiteFaces(NamedTuple):
    """The faces as one cross attention sees them, without copies of what :func:`pack_faces` made."""

    keys: Tensor  # [B, H, M, D]
    values: Tensor  # [B, H, M, D]
    probe: Tensor  # [B, C, 1]

    def to(self, dtype: torch.dtype) -> SiteFaces:
        return SiteFaces(*(tensor.to(dtype) for tensor in self))


def site_faces(packed: Tensor, heads: int) -> SiteFaces:
    """Take each row's packed faces [B, 2 * M + 1, C] apart, the width into ``heads``."""
    count = packed.shape[1] // 2  # M
    keys, values = (packed[:, i * count : (i + 1) * count].unflatten(-1, (heads, -1)).transpose(1, 2) for i in (0, 1))
    return SiteFaces(keys, values, packed[:, 2 * count :].transpose(1, 2))


def gate(activation: Tensor, threshold: float) -> Tensor:
    """The place of each activation [B, N] between its row's extremes, 0..1 in float32.

    Places below ``threshold``, by more than rounding, become 0. Where a row is constant (also: one query) nothing stands out, and the gate is 0.
    """
    activation = activation.float()
    if activation.requires_grad:  # aminmax has no derivative
        low, high = activation.amin(-1, keepdim=True), activation.amax(-1, keepdim=True)
    else:
        low, high = activation.aminmax(dim=-1, keepdim=True)
    place = (activation - low) / (high - low).clamp_min(LEAST_EXTENT)
    return torch.threshold(place, threshold - ROUNDING, 0.0)


def face_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of the queries to the face tokens, as PyTorch's fused kernels compute it (softmax in float32).

    ``q`` [B, N, C], ``keys`` and ``values`` [B, H, M, D], ``bias`` [B or 1, 1, N, M] -> [B, N, C]
    """
    q = q.unflatten(-1, (keys.shape[1], -1)).transpose(1, 2)  # [B, H, N, D]
    return attend(q, keys, values, bias).transpose(1, 2).flatten(2)


def attend(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """PyTorch's fused attention of [B, H, N, D] to [B, H, M, D], ``bias`` [B or 1, 1 or H, 1 or N, M] -> [B, H, N, D].

    Where a CPU trains in bfloat16 it is computed in float32: in bfloat16 its backward pass takes five times as long.
    Heads narrower than 16 get zeros to that width there, which change nothing and save a third of the time.
    """
    if q.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return scaled_dot_product_attention(q, keys, values, attn_mask=bias)
    width = q.shape[-1]
    with torch.autocast("cpu", enabled=False):
        mask = None if bias is None else bias.float()
        more = (0, max(0, LEAST_HEAD - width))
        q, keys, values = (torch.nn.functional.pad(x.float(), more) for x in (q, keys, values))
        return scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=width**-0.5)[..., :width]


def add_faces(
    text: Tensor, q: Tensor, faces: SiteFaces, bias: Tensor, terms: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Text attention + gate * face attention, before ``to_out``, and the gate.

    ``text``, ``q`` [B, N, C]; ``bias`` [B or 1, 1, N, M] of :func:`score_bias`; ``terms`` [B, 2, N] of
    :func:`acting_terms`. Returns [B, N, C] and [B, N] (float32).
    """
    activation = torch.bmm(q, faces.probe).squeeze(-1)  # [B, N]
    scale, shift = terms.unbind(1)
    g = torch.addcmul(shift, gate(activation, threshold), scale)
    out = face_attention(q, faces.keys, faces.values, bias)
    # Written over what only this function knows, unless a backward pass may need that: on a CPU another tensor of this
    # size costs as much as the attention (benchmarks/README.md).
    out = torch.addcmul(text, out, g.unsqueeze(-1), out=None if torch.is_grad_enabled() else out)
    return out.to(q.dtype), g
