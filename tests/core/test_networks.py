"""Networks against the reference values of the published implementation, and checkpoints of other sizes."""

import pytest
import recipe
import torch

from dynamicid_core.checkpoints import load_motion, load_saa
from dynamicid_core.networks.face_encoder import FaceEncoder
from dynamicid_core.networks.keypoints import KeypointEncoder
from dynamicid_core.networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from dynamicid_core.networks.saa import SAAModule, SiteSizes

TOLERANCE = {"atol": 1e-4, "rtol": 0}
SMALL_SITES = SAAModule((SiteSizes(8, 2), SiteSizes(8, 2, 768)))


@pytest.fixture(scope="module")
def values():
    return recipe.reference("modules")


def test_face_encoder_gives_published_values(values):
    tensors = recipe.state_dict(FaceEncoder(), "proj_module.") | recipe.state_dict(SMALL_SITES, "SAA_module.")
    encoder = load_saa(tensors).face_encoder
    identity = recipe.tensor("id_embeds", (2, 512))
    clip = recipe.tensor("clip_embeds", (2, 257, 1280))
    out = encoder(identity / identity.norm(dim=-1, keepdim=True), clip)
    torch.testing.assert_close(out, values["proj/out"], **TOLERANCE)
    torch.testing.assert_close(encoder(torch.zeros(1, 512), clip[:1]), values["proj/out_uncond"], **TOLERANCE)


def test_keypoint_encoder_gives_published_values(values):
    tensors = recipe.state_dict(KeypointEncoder(), "key_point_encoder.")
    assert len(tensors) == 126
    tensors |= recipe.state_dict(Reconfigurator(), "IMR.")
    out = load_motion(tensors).keypoint_encoder(values["keypoint/in"])
    torch.testing.assert_close(out, values["keypoint/out"], **TOLERANCE)


@pytest.mark.parametrize("depth", [1, 2])
def test_reconfigurator_gives_published_values(values, depth):
    tensors = recipe.state_dict(Reconfigurator(ReconfiguratorSizes(depth_out=depth, depth_in=depth)), "IMR.")
    if depth == 1:
        assert len(tensors) == 48
    tensors |= recipe.state_dict(KeypointEncoder(), "key_point_encoder.")
    imr = load_motion(tensors).reconfigurator
    shapes = {
        "src_tokens": (1, 4, 768),
        "src_lm": (1, 768),
        "tgt_lm": (3, 768),
        "src_txt": (1, 768),
        "tgt_txt": (3, 768),
    }
    out = imr(*(recipe.tensor(name, shape) for name, shape in shapes.items()))
    torch.testing.assert_close(out, values[f"imr{depth}/out"], **TOLERANCE)


def test_networks_run_in_half_precision(values):
    for dtype in (torch.float16, torch.bfloat16):
        encoder = FaceEncoder().to(dtype)
        tensors = {k: v.to(dtype) for k, v in recipe.state_dict(FaceEncoder(), "").items()}
        encoder.load_state_dict(tensors)
        out = encoder(torch.zeros(1, 512, dtype=dtype), recipe.tensor("clip_embeds", (2, 257, 1280))[:1].to(dtype))
        assert out.dtype == dtype
        assert torch.isfinite(out).all()
        # LayerNorm gives tokens of unit scale; half precision stays within a few per cent of it.
        assert (out.float() - recipe_reference_uncond(tensors)).abs().mean() < 0.05


def recipe_reference_uncond(tensors):
    encoder = FaceEncoder()
    encoder.load_state_dict({k: v.float() for k, v in tensors.items()})
    return encoder(torch.zeros(1, 512), recipe.tensor("clip_embeds", (2, 257, 1280))[:1])
