"""Attention against the reference values, a naive double loop, and properties that must hold for any input."""

import math

import pytest
import recipe
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from dynamicid_core import attention
from dynamicid_core.attention import acting_terms, add_faces, gate_terms, pack_cast, pack_faces, score_bias, site_faces
from dynamicid_core.networks.saa import SAAModule, SiteSizes
from dynamicid_core.regions import region_weights
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region

HEADS = 8
CASES = {
    # name: (height, width, boxes, layout strength, mix, stored every nth query)
    "single": (16, 16, [(0, 0, 1, 1)], 0, None, 1),
    "single_box": (16, 16, [(0, 0, 0.3, 0.3)], 2, None, 1),
    "pair": (16, 16, [(0.1, 0.1, 0.5, 0.4), (0.1, 0.6, 0.5, 0.9)], 2, None, 1),
    "pair_after_layout": (16, 16, [(0.1, 0.1, 0.5, 0.4), (0.1, 0.6, 0.5, 0.9)], 0, None, 1),
    "trio": (32, 32, [(0, 0, 1, 0.3), (0, 0.4, 1, 0.6), (0, 0.7, 1, 1)], 4, None, 4),
    "wide": (12, 24, [(0, 0, 1, 0.5), (0, 0.5, 1, 1)], 2, None, 4),
    "tall": (24, 16, [(0, 0, 0.5, 1), (0.5, 0, 1, 1)], 2, None, 4),
    "mix": (16, 16, [(0, 0, 1, 1)], 0, 0.7, 1),
}


def make_face(groups=1, mix=(1.0,), tokens=4, width=768):
    zeros = torch.zeros(1, tokens * groups, width)
    return Face(zeros, zeros, "test", mix=mix)


def layer_weight(name, site, c_in, c_out=320):
    """A layer's weight with its LoRA merged: linear, so the sum of both is exact."""
    prefix, adapter = ("attn2", "saa") if site == "cross" else ("attn1", "sa")
    key = "to_out.0" if name == "to_out" else name
    base = recipe.weight(f"{prefix}.{key}.weight", (c_out, c_in))
    down = recipe.weight(f"{adapter}.{name}_lora.down.weight", (128, c_in))
    return base + recipe.weight(f"{adapter}.{name}_lora.up.weight", (c_out, 128)) @ down


def heads(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def text_attention(hidden, context, site):
    q = linear(hidden, layer_weight("to_q", site, 320))
    k = linear(context, layer_weight("to_k", site, context.shape[-1]))
    v = linear(context, layer_weight("to_v", site, context.shape[-1]))
    out = torch.nn.functional.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return q, out.transpose(1, 2).flatten(2)


def to_out(x, site):
    prefix = "attn2" if site == "cross" else "attn1"
    return linear(x, layer_weight("to_out", site, 320), recipe.weight(f"{prefix}.to_out.0.bias", (320,)))


def cast_of(boxes, mix):
    if mix is not None:
        return Cast((Person(make_face(2, (mix, 1 - mix)), Region(box=boxes[0])),))
    return Cast(tuple(Person(make_face(), Region(box=box)) for box in boxes))


def run(text, q, keys, values, cast, height, width, strength=2.0, boost=1.0, threshold=0.3, n_heads=HEADS):
    """The fast path for rows that all see the same faces."""
    rows, dtype = len(q), q.dtype
    weights = region_weights(cast, height, width)
    counts = [person.face.tokens.shape[1] for person in cast.people]
    ones = torch.ones(rows)
    faces = site_faces(pack_faces(keys, values, cast.people), n_heads)
    terms = acting_terms(gate_terms(weights, strength), ones * boost, ones)
    return add_faces(text, q, faces, score_bias(weights.visible, counts).to(dtype), terms, threshold)


@pytest.mark.parametrize("name", CASES)
def test_published_values(name):
    height, width, boxes, strength, mix, every = CASES[name]
    cast = cast_of(boxes, mix)
    tokens = 4 * (2 if mix is not None else len(boxes))
    hidden, text = recipe.tensor("hidden", (2, height * width, 320)), recipe.tensor("text", (2, 77, 768))
    faces = recipe.tensor("id_tokens", (2, tokens, 768))
    q, out = text_attention(hidden, text, "cross")
    keys, values = (linear(faces, recipe.weight(f"saa.{n}_ip.weight", (320, 768))) for n in ("to_k", "to_v"))
    out, _ = run(out, q, keys, values, cast, height, width, strength)
    expected = recipe.reference("attention")[name]
    torch.testing.assert_close(to_out(out, "cross")[:, ::every], expected, atol=1e-4, rtol=0)


def test_published_values_without_gate():
    hidden, text = recipe.tensor("hidden", (2, 256, 320)), recipe.tensor("text", (2, 77, 768))
    faces = recipe.tensor("id_tokens", (2, 4, 768))
    q, out = text_attention(hidden, text, "cross")
    keys, values = (linear(faces, recipe.weight(f"saa.{n}_ip.weight", (320, 768))) for n in ("to_k", "to_v"))
    bias = score_bias(torch.ones(1, 1, 256), [4])
    packed = site_faces(pack_faces(keys, values, (Person(make_face()),)), HEADS)
    out = out + attention.face_attention(q, packed.keys, packed.values, bias)
    torch.testing.assert_close(to_out(out, "cross"), recipe.reference("attention")["single_ungated"], atol=1e-4, rtol=0)


def test_published_self_attention_with_merged_lora():
    hidden = recipe.tensor("hidden", (2, 256, 320))
    _, out = text_attention(hidden, hidden, "self")
    torch.testing.assert_close(to_out(out, "self"), recipe.reference("attention")["self_attention"], atol=1e-4, rtol=0)


def naive(text, q, keys, values, cast, height, width, s, boost, threshold, n_heads):
    """The method written down cell by cell and head by head, without any of the fast path's rearrangements."""
    rows, cells, channels = q.shape
    d = channels // n_heads
    counts = [p.face.tokens.shape[1] for p in cast.people]
    owner = [i for i, n in enumerate(counts) for _ in range(n)]
    mix = [f for p, n in zip(cast.people, counts, strict=True) for f in p.face.mix for _ in range(n // len(p.face.mix))]
    weights = region_weights(cast, height, width)
    s = s * boost if bool((weights.boosted > 0).any()) else 0.0
    out, gates = text.clone(), torch.zeros(rows, cells)
    for b in range(rows):
        activation = [sum(float(q[b, i] @ k) for k in keys[b]) for i in range(cells)]
        low, high = min(activation), max(activation)
        for i in range(cells):
            g = (activation[i] - low) / (high - low) if high > low else 0.0
            g = 0.0 if g < threshold else g
            m, inside = float(weights.boosted[0, i]), float(weights.inside[0, i])
            gates[b, i] = g * (inside + (1 - inside) / (1 + s)) + s * m
            for h in range(n_heads):
                part = slice(h * d, (h + 1) * d)
                scores = []
                for j in range(keys.shape[1]):
                    visible = float(weights.visible[0, owner[j], i])
                    score = float(q[b, i, part] @ keys[b, j, part]) / math.sqrt(d) * mix[j]
                    scores.append(score + (math.log(visible) if visible else -math.inf))
                exps = [math.exp(x - max(scores)) for x in scores]
                for j, e in enumerate(exps):
                    weight = cast.people[owner[j]].weight
                    out[b, i, part] += gates[b, i] * e / sum(exps) * weight * values[b, j, part]
    return out, gates


@pytest.mark.parametrize("height,width,people", [(1, 1, 1), (3, 5, 1), (5, 3, 2), (7, 2, 3), (4, 9, 5)])
@pytest.mark.parametrize("boost", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fast_path_equals_a_double_loop(height, width, people, boost, dtype):
    g = torch.Generator().manual_seed(height * 100 + width)
    regions = [
        Region(mask=torch.rand(1, 11, 13, generator=g)),
        Region(box=(0.0, 0.0, 0.6, 0.7)),
        Region(box=(0.4, 0.3, 1.0, 1.0)),
        None,
        Region(box=(0.2, 0.2, 0.21, 0.21)),
    ]
    cast = Cast(tuple(Person(make_face(), regions[i], weight=0.5 + 0.5 * i) for i in range(people)))
    shape = (2, 4 * people, 16)
    q, text = (torch.randn(2, height * width, 16, generator=g).to(dtype) for _ in range(2))
    keys, values = (torch.randn(shape, generator=g).to(dtype) for _ in range(2))
    # Rounding may put an activation on the other side of the threshold; without one both paths are continuous.
    threshold = 0.3 if dtype == torch.float32 else 0.0
    fast, fast_gate = run(text, q, keys, values, cast, height, width, 2.0, boost, threshold, n_heads=2)
    slow, slow_gate = naive(
        text.float(), q.float(), keys.float(), values.float(), cast, height, width, 2.0, boost, threshold, n_heads=2
    )
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}[dtype]
    assert fast.dtype == dtype
    torch.testing.assert_close(fast_gate, slow_gate, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(fast.float(), slow, atol=tolerance, rtol=tolerance)


def test_constant_activation_and_one_query_add_nothing_and_stay_finite():
    cast = Cast((Person(make_face()),))
    keys, values = torch.randn(1, 4, 16), torch.randn(1, 4, 16)
    for cells in (1, 6):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            q = torch.randn(1, 1, 16).expand(1, cells, 16).to(dtype)
            text = torch.randn(1, cells, 16).to(dtype)
            out, gate = run(text, q, keys.to(dtype), values.to(dtype), cast, cells, 1, n_heads=2)
            assert torch.equal(out, text)
            assert (gate == 0).all()


def test_zero_face_tokens_stay_finite():
    cast = Cast((Person(make_face()), Person(make_face())))
    q = torch.randn(1, 6, 16)
    out, gate = run(q, q, torch.zeros(1, 8, 16), torch.zeros(1, 8, 16), cast, 2, 3, n_heads=2)
    assert torch.equal(out, q)
    assert torch.isfinite(gate).all()


@pytest.mark.parametrize("tokens, weights, said", [(9e3, 900.0, "give values of"), (1.0, 0.05, None)])
def test_values_that_half_precision_does_not_hold_are_said(tokens, weights, said):
    """Each for itself is possible; together they would turn pictures black."""
    saa = SAAModule((SiteSizes(16, 2), SiteSizes(16, 2, 32)))
    with torch.no_grad():
        for layer in (saa.cross_sites[0].to_k_ip, saa.cross_sites[0].to_v_ip):
            layer.weight.fill_(weights)
    cast = Cast((Person(Face(torch.full((1, 4, 32), tokens), torch.ones(1, 4, 32), "x")),))
    if said is None:
        assert pack_cast(saa, cast)[0].isfinite().all()
    else:
        with pytest.raises(DynamicIDError, match=said):
            pack_cast(saa, cast)


def test_large_half_precision_queries_stay_finite():
    cast = Cast((Person(make_face()),))
    q = torch.randn(1, 64, 1280).half() * 400
    keys = torch.randn(1, 4, 1280).half() * 40
    out, gate = run(torch.zeros_like(q), q, keys, torch.randn(1, 4, 1280).half(), cast, 8, 8)
    assert torch.isfinite(out).all()
    assert gate.max() == pytest.approx(1.0)
    assert (gate > 0).float().mean() > 0.05


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31), st.floats(0, 5))
def test_permuting_people_changes_nothing(people, height, width, seed, strength):
    g = torch.Generator().manual_seed(seed)
    # Between 0 and 1 with runs of both, and never all zero.
    masks = [(torch.rand(1, 4, 4, generator=g) * 1.4 - 0.2).clamp(1e-4, 1.0) for _ in range(people)]
    masks = [Region(mask=torch.where(mask > 1e-4, mask, mask * (mask.max() <= 1e-4))) for mask in masks]
    cast = Cast(tuple(Person(make_face(), masks[i], weight=1 + i) for i in range(people)))
    order = torch.randperm(people, generator=g).tolist()
    q, text = (torch.randn(1, height * width, 16, generator=g) for _ in range(2))
    keys, values = (torch.randn(1, people, 4, 16, generator=g) for _ in range(2))
    one, gate_one = run(text, q, keys.flatten(1, 2), values.flatten(1, 2), cast, height, width, strength, n_heads=2)
    permuted = Cast(tuple(cast.people[i] for i in order))
    keys, values = (x[:, order].flatten(1, 2) for x in (keys, values))
    two, gate_two = run(text, q, keys, values, permuted, height, width, strength, n_heads=2)
    assert torch.isfinite(one).all()
    # A value that rounding moves across the threshold may differ by it; everything else is the same.
    same = (gate_one - gate_two).abs() < 1e-3
    assert same.float().mean() >= 0.9
    torch.testing.assert_close(one[same], two[same], atol=1e-3, rtol=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_attention_rows_sum_to_one(people, height, width, seed):
    """With all values 1 an attention returns the sum of its weights."""
    g = torch.Generator().manual_seed(seed)
    boxes = [Region(box=(0.0, i / people, 0.7, (i + 1) / people)) if i % 3 else None for i in range(people)]
    cast = Cast(tuple(Person(make_face(), box) for box in boxes))
    weights = region_weights(cast, height, width)
    bias = score_bias(weights.visible, [4] * people)
    q, keys = torch.randn(1, height * width, 16, generator=g) * 5, torch.randn(1, 2, bias.shape[-1], 8, generator=g) * 5
    out = attention.face_attention(q, keys, torch.ones_like(keys), bias)
    torch.testing.assert_close(out, torch.ones_like(out))


def test_a_persons_weight_scales_that_persons_values():
    q, text = torch.randn(1, 6, 16), torch.zeros(1, 6, 16)
    keys, values = torch.randn(1, 4, 16), torch.randn(1, 4, 16)
    one, _ = run(text, q, keys, values, Cast((Person(make_face()),)), 2, 3, n_heads=2)
    two, _ = run(text, q, keys, values, Cast((Person(make_face(), weight=2.5),)), 2, 3, n_heads=2)
    torch.testing.assert_close(2.5 * one, two)


def test_inputs_stay_and_results_are_the_same_without_gradients():
    cast = Cast((Person(make_face()),))
    g = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        text, q, keys, values = (torch.randn(1, n, 16, generator=g).to(dtype) for n in (6, 6, 4, 4))
        before = text.clone(), q.clone()
        with_gradients, _ = run(text, q, keys, values, cast, 2, 3, n_heads=2)
        with torch.no_grad():
            without, _ = run(text, q, keys, values, cast, 2, 3, n_heads=2)
        assert without.dtype == dtype
        assert torch.equal(with_gradients, without)
        assert torch.equal(text, before[0]) and torch.equal(q, before[1])


def test_gradients_reach_queries_keys_and_values():
    cast = Cast((Person(make_face()),))
    text, q, keys, values = (torch.randn(1, n, 16) for n in (6, 6, 4, 4))
    for tensor in (q, keys, values):
        tensor.requires_grad_()
    out, _ = run(text, q, keys, values, cast, 2, 3, n_heads=2)
    out.sum().backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in (q, keys, values))
