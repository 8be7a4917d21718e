"""Reading tensors, what a file's tensors are called."""

from __future__ import annotations

import published
import pytest
import torch
from safetensors.torch import save_file

from dynamicid_core.files import read_checkpoint, read_tensors
from dynamicid_core.types import DynamicIDError

# --- files in general ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version, safe", [("2.5.1+cu124", False), ("2.4.0", False), ("2.6.0", True), ("2.11.0+cpu", True)]
)
def test_pickles_are_left_alone_where_pytorch_could_be_made_to_run_them(tmp_path, monkeypatch, version, safe):
    """Weights-only loading could be got around before PyTorch 2.6 (CVE-2025-32434); safetensors are read by any."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    monkeypatch.setattr(torch, "load", torch.load if safe else lambda *_, **__: pytest.fail("it was loaded"))
    if safe:
        assert read_tensors(tmp_path / "a.bin").keys() == {"a"}
    else:
        with pytest.raises(
            DynamicIDError, match="a.bin is a PyTorch pickle, which PyTorch 2.* may execute .*Update PyTorch to 2.6"
        ):
            read_tensors(tmp_path / "a.bin")
    assert read_tensors(tmp_path / "a.safetensors").keys() == {"a"}


def test_pickles_that_unfold_are_refused(tmp_path):
    """A few bytes that refer to one another, and a tensor that repeats one stored value a million million times."""
    tower = {"a": torch.ones(1)}
    for _ in range(12):
        tower = dict.fromkeys("abcdefgh", tower)
    looped = {}
    looped["again"] = looped
    vast = {"x": torch.ones(1).expand(10**6, 10**6)}
    for value in (tower, looped, vast):
        torch.save(value, tmp_path / "a.pt")
        assert (tmp_path / "a.pt").stat().st_size < 20_000
        with pytest.raises(DynamicIDError, match="is refused: its (dictionaries hold too much|tensors are larger)"):
            read_tensors(tmp_path / "a.pt")


def test_nested_pickles_become_dotted_names(tmp_path):
    torch.save({"a": {"b": torch.ones(1), 3: {"c": torch.ones(2)}}, "d": 5, "e": [torch.ones(3)]}, tmp_path / "a.pt")
    assert {name: t.numel() for name, t in read_tensors(tmp_path / "a.pt").items()} == {"a.b": 1, "a.3.c": 2}


def test_parts_without_prefixes_are_known_by_their_tensors(tmp_path):
    for shapes, prefix in (
        (published.SMALL_PROJ, "proj_module."),
        (published.SMALL_SAA, "SAA_module."),
        (published.SMALL_IMR, "IMR."),
        (published.SMALL_KEYPOINTS, "key_point_encoder."),
    ):
        torch.save(published.tensors(shapes), tmp_path / "any name.bin")
        assert read_checkpoint(tmp_path / "any name.bin").keys() == {prefix + name for name in shapes}
        save_file(published.tensors(shapes, prefix), tmp_path / "any.sft")
        assert read_checkpoint(tmp_path / "any.sft").keys() == {prefix + name for name in shapes}
