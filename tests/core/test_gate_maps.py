"""The recorder's averages, and that its shares are those of the attention itself."""

from __future__ import annotations

import pytest
import torch

from dynamicid_core.attention import face_attention, padded, score_bias
from dynamicid_core.gate_maps import GateRecorder, person_shares
from dynamicid_core.types import DynamicIDError


def test_shares_are_what_the_attention_gives():
    """With values that are 1 at one person's tokens, attention itself returns that person's share."""
    g = torch.Generator().manual_seed(1)
    counts, heads = [4, 8, 4], 2
    m = padded(sum(counts))
    q, keys = torch.randn(2, 6, 16, generator=g), torch.randn(2, m, 16, generator=g)
    visible = torch.rand(1, 3, 6, generator=g)
    visible[0, 1, :3] = 0
    bias = score_bias(visible, counts)
    shares = person_shares(q, keys, bias, counts, heads)
    assert shares.shape == (2, 3, 6)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 6))
    assert (shares[:, 1, :3] == 0).all()
    start = 0
    for person, count in enumerate(counts):
        values = torch.zeros(2, m, 16)
        values[:, start : start + count] = 1
        out = face_attention(q, keys, values, bias, heads)
        torch.testing.assert_close(shares[:, person], out.mean(-1), atol=1e-5, rtol=0)
        start += count


def test_maps_are_means_over_layers_and_steps():
    recorder = GateRecorder()
    shares = torch.tensor([0.25, 0.75])[None, :, None]
    recorder.add(2, 2, torch.ones(1, 4), shares.expand(1, 2, 4))
    recorder.add(4, 4, torch.zeros(1, 16), shares.expand(1, 2, 16))
    recorder.add(4, 4, torch.full((1, 16), 5.0), shares.expand(1, 2, 16), acts=torch.zeros(1))  # a step that does not count
    maps = recorder.maps(8, 6)
    assert maps.shape == (1, 3, 8, 6)
    torch.testing.assert_close(maps[0, :, 0, 0], torch.tensor([0.125, 0.375, 0.5]))
    recorder.clear()
    with pytest.raises(DynamicIDError, match="recorded"):
        recorder.maps(8, 8)


def test_layers_are_chosen():
    recorder = GateRecorder(layers=[3])
    q, faces, bias = torch.randn(1, 4, 8), torch.randn(1, 33, 8), score_bias(torch.ones(1, 1, 4), [4])
    for layer in range(5):
        recorder.record(layer, q, faces, bias, torch.full((1, 4), float(layer)), [4], 2, 2, 2)
    torch.testing.assert_close(recorder.maps(2, 2), torch.full((1, 2, 2, 2), 3.0))


def test_calls_with_other_rows_do_not_disturb():
    recorder = GateRecorder()
    for rows, value in ((2, 1.0), (2, 1.0), (1, 9.0)):
        recorder.add(2, 2, torch.full((rows, 4), value), torch.ones(rows, 1, 4))
    torch.testing.assert_close(recorder.maps(2, 2), torch.ones(2, 2, 2, 2))
