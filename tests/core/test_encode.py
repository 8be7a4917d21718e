"""Photos to a face with networks that a test can count."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import published
import pytest
import torch
from standins.face_shape import face_shape

from dynamicid_core import encode
from dynamicid_core.checkpoints import load_saa
from dynamicid_core.encode import NULL_PIXELS, TokenEncoder, encode_photos, encode_tokens, null_clip_tokens
from dynamicid_core.faces import DetectedFace
from dynamicid_core.networks.face_encoder import FaceEncoder, FaceEncoderSizes
from dynamicid_core.types import DynamicIDError, Missing

PHOTOS = [np.full((40, 30, 3), shade, dtype=np.uint8) for shade in (0, 200)]
BOX = (8.0, 10.0, 22.0, 28.0)


class Model:
    """What null tokens are remembered by."""


class Clip:
    """Each picture's mean as its tokens; counts the pictures that it sees."""

    def __init__(self) -> None:
        self.model, self.seen = Model(), []

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        return pixels.mean((1, 2, 3))[:, None, None].expand(-1, 5, 9)


class Detector:
    """Finds a face with everything in bright photos, and none in dark ones."""

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        if image.max() < 100:
            return []
        landmarks = (face_shape(smile=0.08) * 7 + (15, 19)).astype(np.float32)
        return [DetectedFace(BOX, 0.9, np.zeros((5, 2)), np.eye(512, dtype=np.float32)[3], landmarks, (1.0, 2.0, 3.0))]


def first_tokens(identities: torch.Tensor, clip_tokens: torch.Tensor) -> torch.Tensor:
    assert identities.shape == (len(clip_tokens), 512)
    return clip_tokens[:, :4, :8] + identities[:, 3, None, None]


ENCODER = TokenEncoder(first_tokens, FaceEncoderSizes(clip=9, width=8), "made by this")


def encoded(photos, clip=None, detector=None, **how):
    how = {"on_no_face": "clip only", **how}
    return encode_photos(photos, detector, clip or Clip(), ENCODER, **how)


# --- Photos -------------------------------------------------------------------------------------------------------


def test_photos_are_averaged_and_null_tokens_are_those_of_zero_pixels():
    clip = Clip()
    face = encoded(PHOTOS, clip).face
    assert clip.seen == [2, 1]
    alone = [encoded([photo]).face.tokens for photo in PHOTOS]
    torch.testing.assert_close(face.tokens, sum(alone) / 2)
    assert not torch.equal(*alone)
    assert (face.uncond_tokens == 0).all() and face.encoder == "made by this"


def test_null_tokens_are_found_once_for_each_model_and_forgotten_with_it():
    clip = Clip()
    encoded(PHOTOS, clip)
    encoded(PHOTOS[:1], clip)
    assert clip.seen == [2, 1, 1]
    assert null_clip_tokens(clip) is null_clip_tokens(clip)
    torch.testing.assert_close(null_clip_tokens(clip), Clip().tokens(NULL_PIXELS))
    before = weakref.ref(clip.model)
    clip.model = Model()  # another one in its place
    null_clip_tokens(clip)
    assert clip.seen == [2, 1, 1, 1]
    gc.collect()
    assert before() is None


def test_many_photos_go_through_clip_in_parts(monkeypatch):
    """The frames of a video must not need memory for all at once."""
    monkeypatch.setattr(encode, "CLIP_BATCH", 3)
    photos, clip = [np.full((16, 16, 3), shade, dtype=np.uint8) for shade in range(0, 240, 30)], Clip()
    face = encoded(photos, clip).face
    assert clip.seen == [3, 3, 2, 1]
    torch.testing.assert_close(face.tokens, sum(encoded([p]).face.tokens for p in photos) / len(photos))


def test_a_face_keeps_what_the_photo_showed_as_fractions_of_what_is_encoded():
    photo = PHOTOS[1]
    whole, cropped = (
        encoded([photo], detector=Detector()),
        encoded([photo], detector=Detector(), crop_factor=1.5, name="A"),
    )
    (found,) = Detector().detect(photo)
    face = whole.face
    assert torch.equal(face.identity, torch.from_numpy(found.identity)) and face.pose.tolist() == [1, 2, 3]
    assert face.expression == "happy" and (face.name, cropped.face.name) == ("", "A")
    torch.testing.assert_close(face.landmarks, torch.from_numpy(found.landmarks / np.array([30, 40], np.float32)))
    side, left, top = 27, 2, 6  # 1.5 times the box's longer side, around its middle
    expected = torch.from_numpy((found.landmarks - (left, top)) / side).float()
    torch.testing.assert_close(cropped.face.landmarks, expected)
    assert whole.chosen == [whole.found[0][0]] and whole.message == ""


def test_photos_without_a_face_are_left_out_or_give_their_appearance():
    alone = encoded(PHOTOS[1:], detector=Detector()).face
    skipped = encoded(PHOTOS, detector=Detector(), on_no_face="skip photo")
    assert torch.equal(skipped.face.tokens, alone.tokens) and "photo 1 of 2: left out" in skipped.message
    both = encoded(PHOTOS, detector=Detector())
    dark = encoded(PHOTOS[:1]).face  # identity zero
    torch.testing.assert_close(both.face.tokens, (dark.tokens + alone.tokens) / 2)
    assert both.chosen[0] is None and torch.equal(both.face.landmarks, alone.landmarks)
    with pytest.raises(DynamicIDError, match="photo 1 of 2"):
        encoded(PHOTOS, detector=Detector(), on_no_face="error")
    with pytest.raises(DynamicIDError, match=r"^No face was found in the photo\. "):
        encoded(PHOTOS[:1], detector=Detector(), on_no_face="error")


def test_mistakes_name_the_photo_where_there_are_several():
    with pytest.raises(DynamicIDError, match="^Photo 2: 1 face was found.*face 4"):
        encoded(PHOTOS, detector=Detector(), index=4)
    with pytest.raises(DynamicIDError, match="^1 face was found"):
        encoded(PHOTOS[1:], detector=Detector(), index=4)
    files = ["anna.jpg", "ben.jpg"]
    with pytest.raises(DynamicIDError, match=r"^Photo 2, ben\.jpg: 1 face was found.*face 4"):
        encoded(PHOTOS, detector=Detector(), index=4, files=files)
    with pytest.raises(DynamicIDError, match=r"^Anna: 1 face was found"):
        encoded(PHOTOS[1:], detector=Detector(), index=4, name="Anna")
    for how, said in (({"files": files}, r"photo 1 of 2 \(anna\.jpg\)"), ({"name": "Anna"}, r"photo 1 of 2 \(Anna\)")):
        with pytest.raises(DynamicIDError, match=f"^No face was found in {said}\\. "):
            encoded(PHOTOS, detector=Detector(), on_no_face="error", **how)
    with pytest.raises(DynamicIDError, match=r"^No face was found in the photo \(Anna\)\. "):
        encoded(PHOTOS[:1], detector=Detector(), on_no_face="error", name="Anna")
    with pytest.raises(DynamicIDError, match="no photo to encode"):
        encoded([])
    with pytest.raises(Missing, match="Without a face detector") as caught:
        encoded(PHOTOS, on_no_face="skip photo")
    assert caught.value.part == "face detector"


@pytest.mark.parametrize("factor", [float("nan"), -1.0, float("inf"), -float("inf"), 100.5])
def test_a_crop_factor_is_0_or_a_number_of_faces(factor):
    clip = Clip()
    with pytest.raises(DynamicIDError, match=f"The crop factor is {factor}; use 0 for the whole photo"):
        encoded(PHOTOS, clip, detector=Detector(), crop_factor=factor)
    assert clip.seen == []


class NoNumbers(Clip):
    """CLIP whose weights hold NaN, or whose half precision overflows."""

    def __init__(self, value: float, photos: bool) -> None:
        super().__init__()
        self.value, self.photos = value, photos

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        seen = super().tokens(pixels).clone()
        seen[0, 0, 0] = self.value if self.photos or not pixels.any() else 1.0
        return seen


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("photos", [True, False])
def test_networks_that_give_no_numbers_are_named_not_the_face(value, photos):
    with pytest.raises(DynamicIDError, match="^The CLIP vision model gave NaN or infinite values, whatever the photo"):
        encoded(PHOTOS, NoNumbers(value, photos))

    def broken(identities, clip_tokens):
        return first_tokens(identities, clip_tokens) * value

    encoder = TokenEncoder(broken, ENCODER.sizes, "")
    with pytest.raises(DynamicIDError, match="^The face encoder of the DynamicID weights gave NaN"):
        encode_photos([PHOTOS[1]], None, Clip(), encoder, on_no_face="clip only")

    class Unknown(Detector):
        def detect(self, image):
            return [
                dataclasses.replace(face, identity=np.full(512, value, np.float32)) for face in super().detect(image)
            ]

    with pytest.raises(DynamicIDError, match="^The face model gave NaN"):
        encoded([PHOTOS[1]], detector=Unknown())


# --- Tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photos", [1, 3])
def test_tokens_and_null_tokens_come_from_one_pass(photos):
    network, passes = load_saa(published.small_saa()).face_encoder, []  # identities of 6, CLIP of 9 -> 3 tokens of 8

    def run(*inputs):
        passes.append(len(inputs[0]))
        return network(*inputs)

    identities, clip, null_clip = torch.randn(photos, 6), torch.randn(photos, 5, 9), torch.randn(1, 5, 9)
    tokens, null = encode_tokens(TokenEncoder(run, network.sizes, ""), identities, clip, null_clip)
    assert passes == [photos + 1]
    for i in range(photos):
        torch.testing.assert_close(tokens[i : i + 1], network(identities[i : i + 1], clip[i : i + 1]))
    torch.testing.assert_close(null, network(torch.zeros(1, 6), null_clip))


def test_training_gets_gradients_through_the_same_function():
    network = FaceEncoder(load_saa(published.small_saa()).face_encoder.sizes)
    encoder = TokenEncoder(network, network.sizes, "")
    tokens, null = encode_tokens(encoder, torch.randn(2, 6), torch.randn(2, 5, 9), torch.randn(1, 5, 9))
    (tokens.square().mean() + null.square().mean()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_another_clip_models_tokens_are_refused():
    encoder = TokenEncoder(first_tokens, FaceEncoderSizes(clip=9), "")
    with pytest.raises(DynamicIDError, match=r"width 1024, but the face encoder needs 9\. Load CLIP-ViT-H-14"):
        encode_tokens(encoder, torch.ones(1, 6), torch.ones(1, 5, 1024), torch.ones(1, 5, 1024))
