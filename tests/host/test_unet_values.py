"""The published implementation's noise prediction of a whole SD1.5 UNet, through Load DynamicID, Load Face, Place Faces
in Boxes, Apply DynamicID and the host's own sampling code."""

from __future__ import annotations

import gc

import pytest
import recipe
import torch
from safetensors.torch import save_file

from dynamicid_core.networks.face_encoder import FaceEncoder, FaceEncoderSizes
from dynamicid_core.networks.saa import SAAModule, SiteSizes

BLOCK_WIDTHS = [320, 320, 640, 640, 1280, 1280] + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
SITES = tuple(SiteSizes(width, 128, context) for width in BLOCK_WIDTHS for context in (None, 768))
PAIR = [(0.1, 0.1, 0.5, 0.4), (0.1, 0.6, 0.5, 0.9)]  # y0, x0, y1, x1
TIMESTEP = 501
TOLERANCE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module")
def expected():
    return recipe.reference("unet")


@pytest.fixture(scope="module")
def unet(host):
    """The full-size UNet with the recipe's weights, as a MODEL."""
    import comfy.sd
    from comfy.utils import unet_to_diffusers

    config = {
        "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1, "transformer_depth_output": [1] * 9 + [0] * 3,
    }  # fmt: skip
    names = {ldm: diffusers for diffusers, ldm in unet_to_diffusers(config).items()}
    import comfy.supported_models

    with torch.device("meta"):
        settings = comfy.supported_models.SD15.unet_config | {
            "in_channels": 4, "out_channels": 4, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
            "transformer_depth_output": [1] * 9 + [0] * 3, "num_heads": 8, "image_size": 32, "use_spatial_transformer": True,
            "legacy": False,
        }  # fmt: skip
        from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

        shapes = {name: tensor.shape for name, tensor in UNetModel(**settings).state_dict().items()}
    values = recipe.weights({f"unet.{names[name]}": shape for name, shape in shapes.items()})
    state = {name: values[f"unet.{names[name]}"] for name in shapes}
    model = comfy.sd.load_diffusion_model_state_dict(state)
    assert type(model.model.model_config).__name__ == "SD15"
    yield model
    del state, model
    host.forget()
    gc.collect()


@pytest.fixture(scope="module")
def loaded(host):
    """The published SAA sizes with the recipe's weights, through the file and Load DynamicID."""
    tensors = recipe.state_dict(SAAModule(SITES), "SAA_module.")
    small = FaceEncoder(FaceEncoderSizes(hidden=64, feed_forward=64, depth=1, inner=64))
    tensors |= {f"proj_module.{name}": tensor for name, tensor in small.state_dict().items()}
    path = host.base / "models" / "dynamicid" / "recipe_saa.safetensors"
    save_file(tensors, path)
    yield host.node("DynamicIDLoader")(saa_file=path.name, imr_file="none")[0]
    path.unlink()


def load_faces(host, people):
    """Face files whose unconditional tokens are the reference's first row and whose tokens are its second."""
    from dynamicid_core.face_files import save_face
    from dynamicid_core.types import Face

    faces = {}
    for person in range(people):
        part = recipe.tensor("id_tokens", (2, 4 * people, 768))[:, 4 * person : 4 * person + 4]
        save_face(host.base / "input" / f"recipe_{person}.safetensors", Face(part[1:], part[:1], "recipe"))
        faces[f"face{person}"] = host.node("DynamicIDLoadFace")(face_file=f"recipe_{person}.safetensors")[0]
    return faces


def predict(model):
    """The noise that the sampler's own code predicts at one noise level for both sides of the guidance, [2, 4, 32, 32]."""
    import comfy.sample
    import comfy.samplers

    text = recipe.tensor("text", (2, 77, 768))
    latent = recipe.tensor("latent32x32", (2, 4, 32, 32))
    sigma = model.get_model_object("model_sampling").sigma(torch.tensor(TIMESTEP)).reshape(1)
    rows = []
    # Row 0 is the negative side (guidance 0 leaves it alone), row 1 the positive one (guidance 1).
    for row, guidance in ((0, 0.0), (1, 1.0)):
        x = latent[row : row + 1] * (sigma**2 + 1) ** 0.5

        def one_call(denoise, noise, sigmas, extra_args=None, x=x, **kwargs):
            return (x - denoise(x, sigmas[:1], **extra_args)) / sigmas[0]

        sampler = comfy.samplers.KSAMPLER(one_call)
        zeros = torch.zeros(1, 4, 32, 32)
        sigmas = torch.cat((sigma, torch.zeros(1)))
        conds = [[[text[i : i + 1], {}]] for i in (1, 0)]
        out = comfy.sample.sample_custom(model, zeros, guidance, sampler, sigmas, *conds, zeros, disable_pbar=True)
        rows.append(model.model.process_latent_in(out))  # the sampler's end took the latent's scale out
    return torch.cat(rows)


def test_plain_model(unet, expected):
    torch.testing.assert_close(predict(unet), expected["base_32x32"], **TOLERANCE)


def test_single(host, unet, loaded, expected):
    face = load_faces(host, 1)["face0"]
    (cast,) = host.node("DynamicIDPlaceFace")(face=face)
    (model,) = host.node("DynamicIDApply")(model=unet, dynamicid=loaded, cast=cast)
    torch.testing.assert_close(predict(model), expected["single"], **TOLERANCE)


def test_pair(host, unet, loaded, expected):
    faces = load_faces(host, 2)
    boxes = [
        {"x": 1000 * x0, "y": 1000 * y0, "width": 1000 * (x1 - x0), "height": 1000 * (y1 - y0)}
        for y0, x0, y1, x1 in PAIR
    ]
    (cast,) = host.node("DynamicIDPlaceFaces")(faces=faces, bboxes=[boxes], width=1000, height=1000)
    (model,) = host.node("DynamicIDApply")(model=unet, dynamicid=loaded, cast=cast, layout_strength=2.0, layout_end=1.0)
    torch.testing.assert_close(predict(model), expected["pair"], **TOLERANCE)


def test_the_model_is_as_before_after_all_that(unet, expected):
    torch.testing.assert_close(predict(unet), expected["base_32x32"], **TOLERANCE)
