"""Semantic-Activated Attention as functions of tensors and numbers (method, section 3).

What depends on the faces alone is packed once (:func:`pack_faces`), what depends on a layer's grid once for each
grid (:func:`score_bias`, :func:`gate_affine`); a step then costs one dot product for each query (the gate), one small
fused attention over the face tokens, and one fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .networks.saa import SAAModule
from .regions import RegionWeights
from .types import Cast, DynamicIDError, Person

# Face tokens are padded to a multiple of this with invisible ones: fused kernels want aligned masks and take their
# slow paths for a handful of keys (measured: 2.4 times faster for 8 keys on a CPU).
TOKEN_MULTIPLE = 16

# The gate jumps at its threshold; a value that misses it by rounding alone counts as reaching it. Otherwise two correct
# orders of summation would give different pictures.
ROUNDING = 1e-6

# Activations (of a probe of length 1) that differ by less are one value. Keeps the gate and its gradient finite.
LEAST_EXTENT = 1e-6


def padded(tokens: int) -> int:
    """Number of face tokens (all people) -> M, the length of the packed token axis."""
    return -(-tokens // TOKEN_MULTIPLE) * TOKEN_MULTIPLE


def pack_faces(keys: Tensor, values: Tensor, people: Sequence[Person]) -> Tensor:
    """Everything that one layer needs of the faces, in one tensor.

    ``keys``, ``values`` [R, tokens of all people, C]: for each role R (null tokens, face tokens) those of all people,
    one after another. Returns [R, 2 * M + 1, C] (M = :func:`padded`): the keys, scaled by each face's ``mix``;
    the values, scaled by each person's weight; and the probe, whose product with a query is the query's activation.
    The activation is the sum of the scores over heads, people and tokens, hence one product with the sum of all keys
    (unscaled, as published). Only its place between its extremes counts, so the probe is given length 1, which
    keeps half precision in range.
    """
    counts = [person.face.tokens.shape[1] for person in people]
    mix = [f for p, n in zip(people, counts, strict=True) for f in p.face.mix for _ in range(n // len(p.face.mix))]
    weight = [p.weight for p, n in zip(people, counts, strict=True) for _ in range(n)]
    probe = torch.nn.functional.normalize(keys.sum(1, keepdim=True), dim=-1)  # [R, 1, C]
    pad = keys.new_zeros(len(keys), padded(keys.shape[1]) - keys.shape[1], keys.shape[2])
    keys = keys * torch.tensor(mix).to(keys)[:, None]
    values = values * torch.tensor(weight).to(values)[:, None]
    return torch.cat((keys, pad, values, pad, probe), dim=1)


def pack_cast(saa: SAAModule, cast: Cast) -> tuple[Tensor, ...]:
    """:func:`pack_faces` for every cross attention, roles null tokens and face tokens: [2, 2 * M + 1, C], float32, CPU.

    Raises DynamicIDError for faces whose tokens do not fit the weights.
    """
    width = saa.cross_sites[0].sizes.context
    for person in cast.people:
        if person.face.tokens.shape[-1] != width:
            raise DynamicIDError(
                f"A face has tokens of width {person.face.tokens.shape[-1]}, but this DynamicID file needs {width}. "
                "Encode the photo again with the loaded file."
            )
    with torch.inference_mode(False), torch.no_grad():
        roles = (torch.cat([getattr(p.face, n).float().cpu() for p in cast.people], dim=1) for n in ("uncond_tokens", "tokens"))
        tokens = torch.cat(list(roles))  # [2, tokens of all people, 768]
        return tuple(
            pack_faces(*(tokens @ layer.weight.float().cpu().T for layer in (site.to_k_ip, site.to_v_ip)), cast.people)
            for site in saa.cross_sites
        )


def score_bias(visible: Tensor, counts: Sequence[int]) -> Tensor:
    """``log`` of each person's visibility [F, P, N], for each of that person's tokens (``counts``) -> [F, 1, N, M]

    Padding is invisible. Equal visibilities share, 0 hides.
    """
    bias = visible.log().repeat_interleave(torch.tensor(counts), dim=1)  # [F, tokens, N]
    out = bias.new_full((len(bias), padded(bias.shape[1]), bias.shape[2]), float("-inf"))
    out[:, : bias.shape[1]] = bias
    return out.transpose(1, 2)[:, None].contiguous()  # [F, 1, N, M]


def gate_affine(weights: RegionWeights, layout_strength: float) -> Tensor:
    """What regions do to the gate: ``gate * scale + shift``.

    Returns [F, 2, 2, N]: without and with the layout boost, scale and shift. With ``m`` in 0..1 the boosted gate is
    ``g * (m + (1 - m) / (1 + s)) + s * m``: ``g + s`` inside, ``g / (1 + s)`` outside.
    """
    s = layout_strength if bool((weights.boosted > 0).any()) else 0.0
    plain = torch.stack((weights.reach, torch.zeros_like(weights.reach)), dim=1)  # [F, 2, N]
    scale = weights.inside + (1 - weights.inside) / (1 + s)
    boost = torch.stack((scale * weights.reach, s * weights.boosted), dim=1)
    return torch.stack((plain, boost), dim=1)


class SiteFaces(NamedTuple):
    """The faces as one cross attention sees them: views of what :func:`pack_faces` made."""

    keys: Tensor  # [B, H, M, D]
    values: Tensor  # [B, H, M, D]
    probe: Tensor  # [B, C, 1]

    def to(self, dtype: torch.dtype) -> SiteFaces:
        return SiteFaces(*(tensor.to(dtype) for tensor in self))


def site_faces(packed: Tensor, heads: int) -> SiteFaces:
    """``packed`` [B, 2 * M + 1, C]: each row's own of :func:`pack_faces`."""
    m = packed.shape[1] // 2
    keys, values = (packed[:, i * m : (i + 1) * m].unflatten(-1, (heads, -1)).transpose(1, 2) for i in (0, 1))
    return SiteFaces(keys, values, packed[:, 2 * m :].transpose(1, 2))


class Grids(NamedTuple):
    """Regions on every grid that one picture size has in the UNet, for each row of a call; 1 row: all are alike."""

    biases: dict[tuple[int, int], Tensor]  # (h, w) -> [B or 1, 1, N, M] of :func:`score_bias`
    affine: Tensor  # [B or 1, 2, 2, sum of N] of :func:`gate_affine`, the grids one after another

    @classmethod
    def of(cls, grids: Mapping[tuple[int, int], tuple[Tensor, Tensor]]) -> Grids:
        """From bias and affine of each grid."""
        return cls({size: bias for size, (bias, _) in grids.items()}, torch.cat([a for _, a in grids.values()], dim=-1))

    def at(self, boost: Tensor, strength: Tensor) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        """What :func:`add_faces` needs in one call, by grid: the bias, and the affine [B, 2, N] of :func:`call_affine`.

        Once for all grids, since on a GPU each operation costs a launch.
        """
        affines = call_affine(self.affine, boost, strength).split([h * w for h, w in self.biases], dim=-1)
        return {size: (bias, affine) for (size, bias), affine in zip(self.biases.items(), affines, strict=True)}


def call_affine(affine: Tensor, boost: Tensor, strength: Tensor) -> Tensor:
    """Scale and shift of the gate in one call of the model: [B, 2, N].

    ``affine`` [B or 1, 2, 2, N] of :func:`gate_affine`; ``boost`` [B] in 0..1 says whether the layout boost acts;
    ``strength`` [B] scales the row.
    """
    return torch.lerp(affine[:, 0], affine[:, 1], boost[:, None, None]) * strength[:, None, None]


def gate(activation: Tensor, threshold: float) -> Tensor:
    """Activation [B, N] -> its place between the row's extremes, 0..1, float32; what lies below ``threshold`` becomes 0.

    Where a row is constant (also: one query) nothing stands out, and the gate is 0.
    """
    activation = activation.float()
    if activation.requires_grad:  # aminmax has no derivative
        low, high = activation.amin(-1, keepdim=True), activation.amax(-1, keepdim=True)
    else:
        low, high = activation.aminmax(dim=-1, keepdim=True)
    place = (activation - low) / (high - low).clamp_min(LEAST_EXTENT)
    return torch.threshold(place, threshold - ROUNDING, 0.0)


def face_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of the queries to the face tokens, softmax in float32.

    ``q`` [B, N, C], ``keys`` and ``values`` [B, H, M, D], ``bias`` [B or 1, 1, N, M] -> [B, N, C]
    """
    q = q.unflatten(-1, (keys.shape[1], -1)).transpose(1, 2)  # [B, H, N, D]
    return scaled_dot_product_attention(q, keys, values, attn_mask=bias).transpose(1, 2).flatten(2)


def add_faces(
    text: Tensor, q: Tensor, faces: SiteFaces, bias: Tensor, affine: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Text attention + gate * face attention, before ``to_out``, and the gate.

    ``text``, ``q`` [B, N, C]; ``bias`` [B or 1, 1, N, M] of :func:`score_bias`; ``affine`` [B, 2, N] of
    :func:`call_affine`. Returns [B, N, C] and [B, N] (float32).
    """
    activation = torch.bmm(q, faces.probe).squeeze(-1)  # [B, N]
    scale, shift = affine.unbind(1)
    g = torch.addcmul(shift, gate(activation, threshold), scale)
    out = face_attention(q, faces.keys, faces.values, bias)
    # Written over what only this function knows, unless a backward pass may need that: on a CPU another tensor of this
    # size costs as much as the attention (benchmarks/README.md).
    out = torch.addcmul(text, out, g.unsqueeze(-1), out=None if torch.is_grad_enabled() else out)
    return out.to(q.dtype), g
