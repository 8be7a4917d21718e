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
    q, keys = torch.randn(2, 6, 16, generator=g), torch.randn(2, heads, m, 8, generator=g)
    visible = torch.rand(1, 3, 6, generator=g)
    visible[0, 1, :3] = 0
    bias = score_bias(visible, counts)
    shares = person_shares(q, keys, bias, counts)
    assert shares.shape == (2, 3, 6)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 6))
    assert (shares[:, 1, :3] == 0).all()
    start = 0
    for person, count in enumerate(counts):
        values = torch.zeros(2, heads, m, 8)
        values[:, :, start : start + count] = 1
        out = face_attention(q, keys, values, bias)
        torch.testing.assert_close(shares[:, person], out.mean(-1), atol=1e-5, rtol=0)
        start += count


def add(recorder, moment, height, width, value, shares=(1.0,)):
    cells = height * width
    gate = torch.full((len(moment), cells), value)
    recorder.add(height, width, gate, torch.tensor(shares)[None, :, None].expand(len(moment), -1, cells), moment)


def test_maps_are_means_over_layers_and_steps():
    recorder = GateRecorder()
    moment = torch.tensor([0.1])
    add(recorder, moment, 2, 2, 1.0, (0.25, 0.75))
    add(recorder, moment, 4, 4, 0.0, (0.25, 0.75))
    maps = recorder.maps(8, 6)
    assert maps.shape == (1, 3, 8, 6)
    torch.testing.assert_close(maps[0, :, 0, 0], torch.tensor([0.125, 0.375, 0.5]))
    recorder.clear()
    with pytest.raises(DynamicIDError, match="recorded"):
        recorder.maps(8, 8)


def test_steps_are_chosen_afterwards():
    recorder = GateRecorder()
    for moment, value in ((0.0, 1.0), (0.24, 3.0), (0.9, 8.0)):
        add(recorder, torch.tensor([moment]), 2, 2, value)
    assert recorder.maps(1, 1)[0, 1, 0, 0] == 4
    assert recorder.maps(1, 1, end_at=0.24)[0, 1, 0, 0] == 2
    assert recorder.maps(1, 1, start_at=0.5)[0, 1, 0, 0] == 8
    with pytest.raises(DynamicIDError, match="No step lies between 0.5 and 0.6"):
        recorder.maps(1, 1, start_at=0.5, end_at=0.6)


def test_layers_are_chosen_afterwards():
    recorder = GateRecorder()
    moment = torch.tensor([0.5])
    for size, value in ((8, 1.0), (4, 2.0), (2, 3.0), (1, 4.0), (8, 3.0)):
        add(recorder, moment, size, size, value)
    means = {"all": 13 / 5, "fine": 2.0, "middle": 2.0, "coarse": 3.5}
    for layers, mean in means.items():
        torch.testing.assert_close(recorder.maps(2, 2, layers), torch.full((1, 2, 2, 2), mean))
    with pytest.raises(DynamicIDError, match="'top' are unknown; choose one of all"):
        recorder.maps(2, 2, "top")


def test_record_takes_what_the_attention_was_given():
    recorder = GateRecorder()
    q, keys, bias = torch.randn(1, 4, 8), torch.randn(1, 2, 16, 4), score_bias(torch.ones(1, 2, 4), [4, 4])
    recorder.record(q, keys, bias, torch.full((1, 4), 2.0), [4, 4], 2, 2, torch.zeros(1))
    maps = recorder.maps(2, 2)[0].flatten(1)
    torch.testing.assert_close(maps[:2], 2 * person_shares(q, keys, bias, [4, 4])[0])
    torch.testing.assert_close(maps[2], torch.full((4,), 2.0))


def test_calls_with_other_rows_do_not_disturb():
    recorder = GateRecorder()
    for rows, value in ((2, 1.0), (2, 1.0), (1, 9.0)):
        add(recorder, torch.zeros(rows), 2, 2, value)
    torch.testing.assert_close(recorder.maps(2, 2), torch.ones(2, 2, 2, 2))
