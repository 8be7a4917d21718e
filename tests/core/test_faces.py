"""Photos to faces: InsightFace's real code over stand-in models, on real photos and on odd ones."""

from __future__ import annotations

import shutil
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from standins.detector import write_detector_pack
from standins.face_shape import face_shape

from dynamicid_core import faces
from dynamicid_core.faces import DetectedFace
from dynamicid_core.types import DynamicIDError

pytest.importorskip("insightface")
pytest.importorskip("onnx")

SKIN = (224, 172, 140)
ASTRONAUT = (219, 122)  # middle of the face in scikit-image's picture
GROUP = ((105, 330), (515, 340), (805, 410), (945, 130), (1185, 335))  # five of the six faces in InsightFace's


@pytest.fixture(scope="session")
def models_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("insightface")
    write_detector_pack(root / "models" / "buffalo_l")
    return root


@pytest.fixture(scope="session")
def detector(models_root):
    return faces.load_detector(roots=[models_root], provider="CPU")


@pytest.fixture(autouse=True)
def _no_home(monkeypatch, tmp_path):
    """No test finds a pack in the home of whoever runs it; scikit-image warns InsightFace of a renamed function."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    warnings.filterwarnings("ignore", category=FutureWarning)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def group() -> np.ndarray:
    from insightface.data import get_image

    return np.ascontiguousarray(get_image("t1", to_rgb=True))


def blobs(size: tuple[int, int], *ovals: tuple[float, float, float], background=(40, 60, 110)) -> np.ndarray:
    """A picture (height, width) with an oval patch of skin for each (x, y, width)."""
    picture = Image.new("RGB", size[::-1], background)
    for x, y, width in ovals:
        ImageDraw.Draw(picture).ellipse((x - width / 2, y - width * 0.62, x + width / 2, y + width * 0.62), fill=SKIN)
    return np.asarray(picture)


def face(x0: float, y0: float, x1: float, y1: float, **fields) -> DetectedFace:
    return DetectedFace((x0, y0, x1, y1), 0.9, np.zeros((5, 2)), **fields)


def holds(found: DetectedFace, point: tuple[float, float]) -> bool:
    x0, y0, x1, y1 = found.box
    return x0 < point[0] < x1 and y0 < point[1] < y1


# --- Detection --------------------------------------------------------------------------------------------------------


def test_the_astronaut_is_found_with_everything_that_a_face_has(detector, astronaut):
    (found,) = detector.detect(astronaut)
    assert holds(found, ASTRONAUT) and 80 < found.size < 200 and 0.5 <= found.score <= 1
    assert found.identity.shape == (512,) and found.identity.dtype == np.float32
    assert np.linalg.norm(found.identity) == pytest.approx(1, abs=1e-5)
    assert found.keypoints.shape == (5, 2) and found.keypoints[0, 0] < found.keypoints[1, 0]
    assert found.landmarks.shape == (106, 2)
    inside = [holds(found, tuple(point)) for point in found.landmarks]
    assert np.mean(inside) > 0.9
    assert found.landmarks[0, 1] > found.landmarks[[52, 61], 1].max() > found.landmarks[86, 1]  # chin, mouth, nose
    assert len(found.pose) == 3 and max(map(abs, found.pose)) < 60


def test_most_people_of_a_group_are_found(detector, group):
    found = detector.detect(group)
    assert sum(any(holds(f, point) for f in found) for point in GROUP) == len(GROUP)
    identities = np.stack([f.identity for f in found])
    different = (identities @ identities.T)[~np.eye(len(found), dtype=bool)]
    assert different.max() < 0.5


def test_a_face_keeps_its_identity_when_the_photo_is_shrunk_or_moved(detector, astronaut):
    (found,) = detector.detect(astronaut)
    shrunk = np.asarray(Image.fromarray(astronaut).resize((448, 448), Image.Resampling.BICUBIC))
    (again,) = detector.detect(np.pad(shrunk, ((0, 0), (64, 0), (0, 0))))
    assert found.identity @ again.identity > 0.5
    assert again.center == pytest.approx((found.center[0] * 0.875 + 64, found.center[1] * 0.875), abs=25)


def test_detection_is_deterministic_and_safe_in_threads(detector, astronaut, group):
    expected = [detector.detect(photo) for photo in (astronaut, group)]
    got = [None] * 4

    def work(i: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got[i] = detector.detect((astronaut, group)[i % 2])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, found in enumerate(got):
        assert [f.box for f in found] == [f.box for f in expected[i % 2]]
        assert all(np.array_equal(a.identity, b.identity) for a, b in zip(found, expected[i % 2], strict=True))


@pytest.mark.parametrize("kind", ["white", "black", "blue", "noise"])
def test_pictures_without_a_face_have_none(detector, kind):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    color = {"white": 255, "black": 0, "blue": (30, 60, 220)}.get(kind)
    picture = noise if color is None else np.full((240, 320, 3), color, np.uint8)
    assert detector.detect(picture) == []


def test_patches_of_skin_give_boxes_of_their_sizes(detector):
    widths = (60, 100, 150)
    picture = blobs((480, 640), (100, 120, 60), (290, 300, 100), (500, 220, 150))
    found = faces.order_faces(detector.detect(picture), "left-right", picture.shape[:2])
    assert len(found) == 3
    for f, width, x in zip(found, widths, (100, 290, 500), strict=True):
        assert f.center[0] == pytest.approx(x, abs=width / 3)
        assert 0.6 * width < f.box[2] - f.box[0] < 1.6 * width
    assert found[0].size < found[1].size < found[2].size


def test_a_face_that_fills_the_photo_is_found_on_a_later_attempt(detector):
    picture = blobs((400, 400), (200, 200, 310))
    (found,) = detector.detect(picture)
    assert found.center == pytest.approx((200, 200), abs=60)
    assert found.size > 200
    boxes, _ = detector._models["detection"].detect(np.ascontiguousarray(picture[..., ::-1]), input_size=(640, 640))
    assert len(boxes) == 0  # the first attempt alone would have missed it


def test_attempts_are_bounded_and_framed_faces_come_back_in_the_photos_pixels(detector, monkeypatch):
    tried = []

    def detect(picture, input_size=None):
        tried.append((picture.shape[:2], input_size))
        if picture.shape[:2] == (100, 150):  # without a border
            return np.empty((0, 5)), np.empty((0, 5, 2))
        box = [75 + 10, 50 + 20, 75 + 110, 50 + 140, 0.8]
        points = [[75 + 30, 50 + 60], [75 + 90, 50 + 60], [75 + 60, 50 + 90], [75 + 35, 50 + 120], [75 + 85, 50 + 120]]
        return np.array([box], dtype=float), np.array([points], dtype=float)

    monkeypatch.setattr(detector._models["detection"], "detect", detect)
    photo = np.full((100, 150, 3), 128, np.uint8)
    (found,) = detector.detect(photo)
    assert tried == [((100, 150), (640, 640)), ((100, 150), (320, 320)), ((200, 300), (640, 640))]
    assert found.box == (10, 20, 110, 140) and found.keypoints[0].tolist() == [30, 60]


def test_no_more_than_four_attempts_are_made(detector, monkeypatch):
    tried = []

    def detect(picture, input_size=None):
        tried.append((picture.shape[:2], input_size))
        return np.empty((0, 5)), np.empty((0, 5, 2))

    monkeypatch.setattr(detector._models["detection"], "detect", detect)
    assert detector.detect(np.zeros((100, 150, 3), np.uint8)) == []
    assert len(tried) == len(set(tried)) == 4


def test_huge_photos_are_shrunk_for_detection_only(detector, astronaut):
    (small,) = detector.detect(astronaut)
    huge = np.kron(astronaut, np.ones((10, 10, 1), np.uint8))
    (found,) = detector.detect(huge)
    assert np.array(found.box) / 10 == pytest.approx(small.box, abs=25)
    assert np.abs(found.landmarks / 10 - small.landmarks).max() < 40
    assert found.identity @ small.identity > 0.5


@pytest.mark.parametrize("size", [(40, 6000), (6000, 40), (16, 16), (17, 900), (700, 250)])
def test_odd_shapes_are_searched_without_a_crash(detector, size):
    assert detector.detect(np.full((*size, 3), 200, np.uint8)) == []


def test_a_portrait_with_the_face_at_the_top_is_found(detector, astronaut):
    portrait = np.ascontiguousarray(astronaut[:, 100:340])  # 512 high, 240 wide
    found = faces.order_faces(detector.detect(portrait), "large-small", portrait.shape[:2])
    assert holds(found[0], (ASTRONAUT[0] - 100, ASTRONAUT[1]))


def test_identity_is_read_off_in_the_channel_order_asked_for(models_root, detector, astronaut):
    bgr = faces.load_detector(roots=[models_root], provider="CPU", identity_channels="bgr")
    (published,), (usual,) = detector.detect(astronaut), bgr.detect(astronaut)
    assert published.box == usual.box and np.array_equal(published.landmarks, usual.landmarks)
    assert published.identity @ usual.identity < 0.99
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(name=str(models_root / "models" / "buffalo_l"), providers=["CPUExecutionProvider"])
    app.prepare(0, det_size=(640, 640))
    (expected,) = app.get(np.ascontiguousarray(astronaut[..., ::-1]))
    assert np.abs(usual.identity - expected.normed_embedding).max() < 1e-5
    assert np.abs(usual.landmarks - expected.landmark_2d_106).max() < 1e-3
    assert usual.pose == pytest.approx(tuple(expected.pose), abs=1e-3)
    with pytest.raises(DynamicIDError, match="identity_channels"):
        faces.load_detector(roots=[models_root], provider="CPU", identity_channels="hsv")


def test_a_mirrored_face_is_turned_the_other_way(models_root, detector):
    picture = np.random.default_rng(1).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    from insightface.app.common import Face

    turned = []
    for photo in (picture, np.ascontiguousarray(picture[:, ::-1])):
        found = Face(bbox=np.array([32.0, 32, 160, 160]))
        detector._models["landmark_3d_68"].get(photo, found)
        turned.append(found.pose[1])
    # InsightFace's mean face is not quite symmetric
    assert turned[0] * turned[1] < 0 and abs(turned[0] + turned[1]) < 0.3 * abs(turned[0] - turned[1])


# --- Packs and packages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["models/buffalo_l", "buffalo_l", "models/buffalo_l/buffalo_l", "buffalo_l/buffalo_l"])
def test_packs_are_found_where_artists_have_them(models_root, tmp_path, place):
    shutil.copytree(models_root / "models" / "buffalo_l", tmp_path / "root" / place)
    found = faces.find_pack("buffalo_l", [tmp_path / "elsewhere", tmp_path / "root"])
    assert set(found) == set(faces.PACK_MODELS)
    assert {path.parent for path in found.values()} == {tmp_path / "root" / place}


def test_packs_are_found_at_home_and_by_their_folder(models_root, tmp_path):
    home = tmp_path / "home" / ".insightface" / "models" / "buffalo_l"
    shutil.copytree(models_root / "models" / "buffalo_l", home)
    assert faces.find_pack()["detection"] == home / "det_10g.onnx"
    assert faces.find_pack(str(models_root / "models" / "buffalo_l"))["detection"].parent.parent.parent == models_root


def test_an_incomplete_folder_is_passed_over_for_a_complete_one(models_root, tmp_path):
    (tmp_path / "models" / "buffalo_l").mkdir(parents=True)
    (tmp_path / "models" / "buffalo_l" / "det_10g.onnx").write_bytes(b"")
    assert faces.find_pack(roots=[tmp_path, models_root])["detection"].is_relative_to(models_root)


def test_a_missing_pack_names_folders_address_and_licence(tmp_path):
    with pytest.raises(DynamicIDError) as error:
        faces.find_pack("buffalo_l", [tmp_path])
    text = str(error.value)
    for place in (tmp_path / "models" / "buffalo_l", tmp_path / "buffalo_l" / "buffalo_l", Path.home() / ".insightface"):
        assert str(place) in text
    assert "releases/download/v0.7/buffalo_l.zip" in text and "non-commercial research" in text


@pytest.mark.parametrize("missing", ["det_10g", "w600k_r50", "2d106det"])
def test_an_incomplete_pack_names_what_it_lacks(models_root, tmp_path, missing):
    folder = tmp_path / "models" / "buffalo_l"
    shutil.copytree(models_root / "models" / "buffalo_l", folder)
    (folder / f"{missing}.onnx").unlink()
    with pytest.raises(DynamicIDError, match=f"{missing[:4]}.*onnx") as error:
        faces.find_pack("buffalo_l", [tmp_path])
    assert str(error.value).count("lacks") == 1


def test_a_pack_without_the_pose_model_works_without_pose(models_root, tmp_path, astronaut):
    shutil.copytree(models_root / "models" / "buffalo_l", tmp_path / "buffalo_l")
    (tmp_path / "buffalo_l" / "1k3d68.onnx").unlink()
    (found,) = faces.load_detector(roots=[tmp_path], provider="CPU").detect(astronaut)
    assert found.pose is None and found.landmarks is not None


def test_damaged_and_misnamed_models_are_named(models_root, tmp_path):
    folder = tmp_path / "buffalo_l"
    shutil.copytree(models_root / "models" / "buffalo_l", folder)
    whole = (folder / "w600k_r50.onnx").read_bytes()
    (folder / "w600k_r50.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DynamicIDError, match="w600k_r50.onnx cannot be loaded.*buffalo_l.zip"):
        faces.load_detector(roots=[tmp_path], provider="CPU")
    shutil.copy(folder / "2d106det.onnx", folder / "w600k_r50.onnx")
    with pytest.raises(DynamicIDError, match="named like a recognition model, but is for landmark_2d_106"):
        faces.load_detector(roots=[tmp_path], provider="CPU")


def test_stand_ins_are_the_same_every_time_small_and_never_replace_real_models(models_root, tmp_path):
    written = write_detector_pack(tmp_path / "pack")
    assert sum(path.stat().st_size for path in written.values()) < 5_000_000
    for path in written.values():
        assert path.read_bytes() == (models_root / "models" / "buffalo_l" / path.name).read_bytes()
    other = write_detector_pack(tmp_path / "other", seed=1)
    assert other["w600k_r50"].read_bytes() != written["w600k_r50"].read_bytes()
    other["2d106det"].write_bytes(b"a real model")
    with pytest.raises(DynamicIDError, match="2d106det.onnx is not a stand-in"):
        write_detector_pack(tmp_path / "other")
    assert other["2d106det"].read_bytes() == b"a real model"


@pytest.mark.parametrize("package", ["insightface", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command(monkeypatch, models_root, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DynamicIDError, match=f"needs the Python package {package}.*pip install insightface onnxruntime"):
        faces.load_detector(roots=[models_root])


def test_providers_are_chosen_among_those_that_are_there(monkeypatch):
    import onnxruntime

    def here(*names):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [f"{n}ExecutionProvider" for n in names])

    here("Dml", "Azure", "CPU")
    assert faces.choose_providers() == ["DmlExecutionProvider", "CPUExecutionProvider"]
    assert faces.choose_providers("cpu") == ["CPUExecutionProvider"]
    here("CPU", "CoreML", "CUDA")
    assert faces.choose_providers("auto")[0] == "CUDAExecutionProvider"
    assert faces.choose_providers("CoreML")[0] == "CoreMLExecutionProvider"
    here("CPU")
    assert faces.choose_providers() == ["CPUExecutionProvider"]
    for provider in ("CUDA", "TensorRT"):
        with pytest.raises(DynamicIDError, match=f"'{provider}' is not available.*which has: CPU"):
            faces.choose_providers(provider)


# --- Pictures ---------------------------------------------------------------------------------------------------------

RAMP = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY = RAMP[..., 0]


@pytest.mark.parametrize(
    "image, expected",
    [
        (RAMP, RAMP),
        (RAMP[None], RAMP),
        (RAMP.astype(np.uint16) * 257, RAMP),
        (RAMP.astype(np.int32) * 257, RAMP),
        (RAMP / 255, RAMP),
        ((RAMP / 255).astype(np.float16), RAMP),
        (torch.from_numpy(RAMP).float() / 255, RAMP),
        ((torch.from_numpy(RAMP).float() / 255)[None], RAMP),
        (torch.from_numpy(RAMP), RAMP),
        (GREY, np.stack([GREY] * 3, -1)),
        (GREY[..., None], np.stack([GREY] * 3, -1)),
        (GREY > 99, np.stack([(GREY > 99) * np.uint8(255)] * 3, -1)),
        (np.dstack([RAMP, np.full_like(GREY, 255)]), RAMP),
        (np.dstack([RAMP, np.zeros_like(GREY)]), np.full_like(RAMP, 255)),
        (np.dstack([GREY, np.zeros_like(GREY)]), np.full_like(RAMP, 255)),
        (Image.fromarray(RAMP), RAMP),
        (Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
        (Image.fromarray((GREY / 255).astype(np.float32)), np.stack([GREY] * 3, -1)),
        (Image.fromarray(np.dstack([RAMP, np.zeros_like(GREY)]), "RGBA"), np.full_like(RAMP, 255)),
        (Image.fromarray(np.full_like(RAMP, 255) - RAMP).convert("CMYK"), np.full_like(RAMP, 255) - RAMP),
    ],
)
def test_any_picture_becomes_rgb(image, expected):
    rgb = faces.to_rgb(image)
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.array_equal(rgb, expected)


def test_floats_are_clipped_and_rounded_as_hosts_give_them():
    rgb = faces.to_rgb(np.full((20, 20, 3), 1.2))
    assert (rgb == 255).all()
    levels = torch.arange(256).float().div(255).view(16, 16, 1)  # division and back must give the same level
    assert np.array_equal(faces.to_rgb(levels)[..., 0].ravel(), np.arange(256))


def test_a_transparent_palette_and_half_transparency_go_on_white(tmp_path):
    half = np.dstack([np.zeros_like(RAMP), np.full_like(GREY, 128)])
    assert np.abs(faces.to_rgb(half).astype(int) - 127).max() <= 1
    palette = Image.fromarray(GREY // 128).convert("P")
    palette.save(tmp_path / "clear.png", transparency=0)
    rgb = faces.to_rgb(tmp_path / "clear.png")
    assert (rgb[GREY < 128] == 255).all()


@pytest.mark.parametrize("orientation, undo", [(3, 2), (6, 3), (8, 1)])
def test_a_camera_held_sideways_is_put_upright(tmp_path, orientation, undo):
    photo = np.kron(RAMP, np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo).save(tmp_path / "photo.png", exif=exif)
    rgb = faces.to_rgb(str(tmp_path / "photo.png"))
    assert np.array_equal(rgb, np.rot90(photo, undo))
    with Image.open(tmp_path / "photo.png") as opened:
        assert np.array_equal(faces.to_rgb(opened), rgb)


def test_16_bit_files_keep_their_levels(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(faces.to_rgb(tmp_path / "deep.png")[..., 1], GREY)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((1, 1, 3), np.uint8), "1x1 px is too small"),
        (np.zeros((15, 900, 3), np.uint8), "900x15 px is too small"),
        (np.zeros((0, 0, 3), np.uint8), "0x0 px is too small"),
        (np.zeros((3, 64, 64), np.uint8), "shape .3, 64, 64.; expected one photo"),
        (np.zeros((2, 64, 64, 3), np.uint8), "expected one photo"),
        (np.full((64, 64, 3), np.nan), "NaN"),
        (np.full((64, 64, 3), -5), "from -5 to -5"),
        (np.full((64, 64, 3), 70000), "from 70000 to 70000"),
        (np.full((64, 64, 3), 1j), "type complex128"),
    ],
)
def test_pictures_that_cannot_be_used_say_why(image, message):
    with pytest.raises(DynamicIDError, match=message):
        faces.to_rgb(image)


def test_files_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    with pytest.raises(DynamicIDError, match="There is no photo .*nothing.png"):
        faces.to_rgb(tmp_path / "nothing.png")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(DynamicIDError, match="text.jpg cannot be read"):
        faces.to_rgb(tmp_path / "text.jpg")
    Image.fromarray(np.kron(RAMP, np.ones((8, 8, 1), np.uint8))).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DynamicIDError, match="cut.png cannot be read"):
        faces.to_rgb(tmp_path / "cut.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DynamicIDError, match="whole.png is too large"):
        faces.to_rgb(tmp_path / "whole.png")


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (768, 1024), (1024, 768), (225, 300), (37, 501), (499, 333)])
def test_clip_gets_what_hugging_faces_processor_gives(size):
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # before transformers 5 the processor used PIL anyway
        from transformers import CLIPImageProcessor as Processor

    photo = np.random.default_rng(size[1]).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Processor()(Image.fromarray(photo), return_tensors="pt")["pixel_values"]
    pixels = faces.clip_pixels(photo)
    assert pixels.shape == (1, 3, 224, 224) and pixels.dtype == torch.float32
    assert (pixels - expected).abs().max() < 1e-5
    # The cropped picture passes unchanged, whatever does the same again.
    assert torch.equal(faces.clip_pixels(faces.clip_crop(photo)), pixels)


# --- Crops and landmarks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box, factor, place",
    [
        ((100, 80, 140, 120), 1.0, (100, 80, 140, 120)),
        ((100, 80, 140, 120), 2.0, (80, 60, 160, 140)),
        ((100, 80, 120, 120), 1.5, (80, 70, 140, 130)),  # the longer side counts
        ((0, 0, 40, 40), 2.0, (0, 0, 80, 80)),  # moved in
        ((-20, 150, 40, 210), 1.5, (0, 110, 90, 200)),
        ((270, 100, 310, 140), 2.0, (220, 80, 300, 160)),
        ((100, 80, 140, 120), 50.0, (20, 0, 220, 200)),  # shrunk to the picture
    ],
)
def test_crops_are_square_and_inside_the_picture(box, factor, place):
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    crop, got = faces.crop_square(picture, box, factor)
    assert got == place
    x0, y0, x1, y1 = place
    assert np.array_equal(crop, picture[y0:y1, x0:x1]) and crop.shape[0] == crop.shape[1]


def test_a_crop_needs_a_sensible_factor():
    for factor in (0, -1, float("nan")):
        with pytest.raises(DynamicIDError, match="crop factor"):
            faces.crop_square(RAMP, (0, 0, 9, 9), factor)


def test_landmarks_are_fractions_of_what_is_encoded():
    points = np.array([[80.0, 60], [160, 140], [120, 80], [70, 60]])
    fractions = faces.landmark_fractions(points, (80, 60, 160, 140))
    assert fractions.dtype == np.float32
    assert fractions.tolist() == [[0, 0], [1, 1], [0.5, 0.25], [-0.125, 0]]


def test_the_raster_follows_the_published_rule():
    pixels = np.array([[0.0, 5], [5, 0], [0.001, 5.99], [95.99, 95.99], [96, 5], [5, 96], [-1, 5], [40.7, 20.2]], np.float32)
    points = np.concatenate([pixels, np.full((98, 2), -1, np.float32)])
    raster = faces.landmark_raster(points / 96)
    assert raster.shape == (1, 1, 96, 96) and raster.dtype == torch.float32
    assert set(raster.unique().tolist()) == {-1.0, 1.0}
    assert (raster[0, 0] == 1).nonzero().tolist() == [[5, 0], [20, 40], [95, 95]]


def test_the_raster_of_many_faces_is_each_ones_own():
    shapes = np.stack([face_shape(gap=gap) for gap in (0, 0.1, 0.3)]) / 4 + 0.5
    raster = faces.landmark_raster(torch.from_numpy(shapes))
    assert raster.shape == (3, 1, 96, 96)
    for i in range(3):
        alone = np.full((96, 96), -1.0)
        for x, y in shapes[i].astype(np.float32) * np.float32(96):
            alone[int(y), int(x)] = 1
        assert np.array_equal(raster[i, 0].numpy(), alone)


# --- Choosing ---------------------------------------------------------------------------------------------------------

A, B, C = face(10, 100, 40, 140), face(60, 20, 120, 90), face(130, 60, 180, 115)


@pytest.mark.parametrize(
    "order, expected",
    [
        ("large-small", [B, C, A]),
        ("small-large", [A, C, B]),
        ("left-right", [A, B, C]),
        ("right-left", [C, B, A]),
        ("top-bottom", [B, C, A]),
        ("bottom-top", [A, C, B]),
        ("near-center", [B, C, A]),
    ],
)
def test_orders(order, expected):
    assert order in faces.ORDERS and len(faces.ORDERS) == 7
    for given in ([A, B, C], [C, A, B]):
        assert faces.order_faces(given, order, (200, 200)) == expected
        assert [faces.pick_face(given, order, i, (200, 200)) for i in range(3)] == expected


def test_a_face_that_is_not_there_is_refused_with_the_number_of_faces():
    with pytest.raises(DynamicIDError, match="3 faces were found, numbered from 0 to 2, but face 3"):
        faces.pick_face([A, B, C], "left-right", 3, (200, 200))
    with pytest.raises(DynamicIDError, match="1 face was found.*face -1"):
        faces.pick_face([A], "left-right", -1, (200, 200))
    with pytest.raises(DynamicIDError, match="No face was found"):
        faces.pick_face([], "left-right", 0, (200, 200))
    with pytest.raises(DynamicIDError, match="'biggest' is unknown; choose one of large-small"):
        faces.order_faces([A], "biggest", (200, 200))


def test_photos_without_a_face_are_reported_by_number_and_treated_as_asked():
    found = [A, None, B, None]
    assert faces.on_no_face([A, B], "error") == ([0, 1], "")
    with pytest.raises(DynamicIDError, match="in photos 2, 4 of 4.*clip only"):
        faces.on_no_face(found, "error")
    kept, note = faces.on_no_face(found, "clip only")
    assert kept == [0, 1, 2, 3] and "photos 2, 4 of 4" in note
    kept, note = faces.on_no_face(found, "skip photo")
    assert kept == [0, 2] and "photos 2, 4 of 4: left out" in note
    with pytest.raises(DynamicIDError, match="in photo 1 of 1"):
        faces.on_no_face([None], "skip photo")
    with pytest.raises(DynamicIDError, match="on_no_face is 'ignore'"):
        faces.on_no_face(found, "ignore")


# --- Preview ----------------------------------------------------------------------------------------------------------


def test_hints_say_what_speaks_against_a_reference(astronaut):
    box = (160, 60, 280, 185)
    assert faces.quality(astronaut, face(*box, pose=(5.0, -30.0, 0.0))) == []
    assert faces.quality(astronaut, face(*box, pose=(0.0, -55.0, 0.0))) == ["turned away"]
    assert faces.quality(astronaut, face(*box, pose=(-40.0, 0.0, 0.0))) == ["turned away"]
    small = Image.fromarray(astronaut).resize((256, 256))
    blurred = np.asarray(small.resize((64, 64)).resize((512, 512), Image.Resampling.BICUBIC))
    assert faces.quality(blurred, face(*box)) == ["blurred"]
    assert "small" in faces.quality(np.asarray(small), face(*(v / 2 for v in box)))


def test_every_face_is_boxed_numbered_and_the_chosen_one_marked():
    photo = np.full((400, 600, 3), 127, np.uint8)
    landmarks = (face_shape() * 50 + (300, 100)).astype(np.float32)
    crowd = [face(20, 40, 120, 150), face(240, 40, 360, 160, landmarks=landmarks, pose=(1.0, 2.0, 3.0))]
    crowd.append(face(560, 350, 640, 430))  # reaches over the edge
    drawn = faces.draw_faces(photo, crowd, chosen=1)
    assert drawn.shape == photo.shape and drawn.dtype == np.uint8 and (photo == 127).all()
    green, yellow = (np.all(drawn == color, -1) for color in ((0x40, 0xFF, 0x60), (0xFF, 0xD0, 0x30)))
    assert green[40:160, 240].all() and green[40, 240:360].all()
    assert yellow[40:150, 20].all() and not yellow[:, 200:400].any()
    assert yellow[352:, 560].all()
    inside = green[60:155, 250:350]
    assert inside.sum() > 106  # the landmarks of the chosen one
    assert green[165:260, 240:420].sum() > 100  # and its text
    none_chosen = faces.draw_faces(photo, crowd)
    assert not np.all(none_chosen == (0x40, 0xFF, 0x60), -1).any()
    assert np.array_equal(faces.draw_faces(photo, []), photo)


@pytest.mark.parametrize("size", [(48, 32), (300, 60), (2000, 3000)])
def test_text_grows_with_the_picture_and_stays_inside(size):
    photo = np.zeros((*size, 3), np.uint8)
    h, w = size
    drawn = faces.draw_faces(photo, [face(w * 0.2, h * 0.2, w * 0.6, h * 0.7, pose=(0.0, 0.0, 0.0))], 0)
    text = np.all(drawn == (0x40, 0xFF, 0x60), -1)
    assert text.any() and drawn.shape == (*size, 3)
    if h == 2000:
        assert text[1440:1600].any(axis=1).sum() > 30  # the caption's letters under the box
