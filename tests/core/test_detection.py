"""InsightFace's real code over stand-in models: on real photos, on odd ones, with packs of all kinds, offline."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from standins.detector import write_detector_pack

from dynamicid_core import detection
from dynamicid_core.faces import DetectedFace, order_faces
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
    return detection.load_detector(roots=[models_root], provider="CPU")


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
def seen(detector, astronaut) -> DetectedFace:
    """The one face of that picture."""
    (found,) = detector.detect(astronaut)
    return found


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


def holds(found: DetectedFace, point: tuple[float, float]) -> bool:
    x0, y0, x1, y1 = found.box
    return x0 < point[0] < x1 and y0 < point[1] < y1


# --- Detection --------------------------------------------------------------------------------------------------------


def test_the_astronaut_is_found_with_everything_that_a_face_has(seen):
    found = seen
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


def test_a_face_keeps_its_identity_when_the_photo_is_shrunk_or_moved(detector, astronaut, seen):
    found = seen
    shrunk = np.asarray(Image.fromarray(astronaut).resize((448, 448), Image.Resampling.BICUBIC))
    (again,) = detector.detect(np.pad(shrunk, ((0, 0), (64, 0), (0, 0))))
    assert found.identity @ again.identity > 0.5
    assert again.center == pytest.approx((found.center[0] * 0.875 + 64, found.center[1] * 0.875), abs=25)


def test_detection_is_deterministic_and_safe_in_threads(detector, astronaut, seen):
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    photos = (astronaut, mirrored)
    expected = [[seen], detector.detect(mirrored)]
    got = [None] * 2

    def work(i: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got[i] = detector.detect(photos[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found, wanted in zip(got, expected, strict=True):
        assert [f.box for f in found] == [f.box for f in wanted]
        assert all(np.array_equal(a.identity, b.identity) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", ["white", "black", "blue", "noise"])
def test_pictures_without_a_face_have_none(detector, kind):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    color = {"white": 255, "black": 0, "blue": (30, 60, 220)}.get(kind)
    picture = noise if color is None else np.full((240, 320, 3), color, np.uint8)
    assert detector.detect(picture) == []


def test_patches_of_skin_give_boxes_of_their_sizes(detector):
    widths = (60, 100, 150)
    picture = blobs((480, 640), (100, 120, 60), (290, 300, 100), (500, 220, 150))
    found = order_faces(detector.detect(picture), "left-right", picture.shape[:2])
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


def test_huge_photos_are_shrunk_for_detection_only(detector, astronaut, seen, monkeypatch):
    monkeypatch.setattr(detection, "LARGEST_DETECTION", 512)
    sizes, find = [], detector._find
    monkeypatch.setattr(detector, "_find", lambda picture: sizes.append(picture.shape[:2]) or find(picture))
    (found,) = detector.detect(np.kron(astronaut, np.ones((2, 2, 1), np.uint8)))
    assert sizes == [(512, 512)]
    assert np.allclose(np.array(found.box) / 2, seen.box) and np.allclose(found.landmarks / 2, seen.landmarks)
    assert np.array_equal(found.identity, seen.identity)


@pytest.mark.parametrize("size", [(40, 6000), (6000, 40), (16, 16), (17, 900), (700, 250)])
def test_odd_shapes_are_searched_without_a_crash(detector, size):
    assert detector.detect(np.full((*size, 3), 200, np.uint8)) == []


def test_a_portrait_with_the_face_at_the_top_is_found(detector, astronaut):
    portrait = np.ascontiguousarray(astronaut[:, 100:340])  # 512 high, 240 wide
    found = order_faces(detector.detect(portrait), "large-small", portrait.shape[:2])
    assert holds(found[0], (ASTRONAUT[0] - 100, ASTRONAUT[1]))


def test_identity_is_read_off_in_the_channel_order_asked_for(models_root, astronaut, seen):
    bgr = detection.load_detector(roots=[models_root], provider="CPU", identity_channels="bgr")
    published, (usual,) = seen, bgr.detect(astronaut)
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
        detection.load_detector(roots=[models_root], provider="CPU", identity_channels="hsv")


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


@pytest.mark.parametrize(
    "place", ["models/buffalo_l", "buffalo_l", "models/buffalo_l/buffalo_l", "buffalo_l/buffalo_l"]
)
def test_packs_are_found_where_artists_have_them(models_root, tmp_path, place):
    shutil.copytree(models_root / "models" / "buffalo_l", tmp_path / "root" / place)
    found = detection.find_pack("buffalo_l", [tmp_path / "elsewhere", tmp_path / "root"])
    assert set(found) == set(detection.PACK_MODELS)
    assert {path.parent for path in found.values()} == {tmp_path / "root" / place}


def test_packs_are_found_at_home_and_by_their_folder(models_root, tmp_path):
    home = tmp_path / "home" / ".insightface" / "models" / "buffalo_l"
    shutil.copytree(models_root / "models" / "buffalo_l", home)
    assert detection.find_pack()["detection"] == home / "det_10g.onnx"
    assert (
        detection.find_pack(str(models_root / "models" / "buffalo_l"))["detection"].parent.parent.parent == models_root
    )


def test_an_incomplete_folder_is_passed_over_for_a_complete_one(models_root, tmp_path):
    (tmp_path / "models" / "buffalo_l").mkdir(parents=True)
    (tmp_path / "models" / "buffalo_l" / "det_10g.onnx").write_bytes(b"")
    assert detection.find_pack(roots=[tmp_path, models_root])["detection"].is_relative_to(models_root)


def test_a_missing_pack_names_folders_address_and_licence(tmp_path):
    with pytest.raises(DynamicIDError) as error:
        detection.find_pack("buffalo_l", [tmp_path])
    text = str(error.value)
    for place in (
        tmp_path / "models" / "buffalo_l",
        tmp_path / "buffalo_l" / "buffalo_l",
        Path.home() / ".insightface",
    ):
        assert str(place) in text
    assert "releases/download/v0.7/buffalo_l.zip" in text and "non-commercial research" in text


@pytest.mark.parametrize("missing", ["det_10g", "w600k_r50", "2d106det"])
def test_an_incomplete_pack_names_what_it_lacks(models_root, tmp_path, missing):
    folder = tmp_path / "models" / "buffalo_l"
    shutil.copytree(models_root / "models" / "buffalo_l", folder)
    (folder / f"{missing}.onnx").unlink()
    with pytest.raises(DynamicIDError, match=f"{missing[:4]}.*onnx") as error:
        detection.find_pack("buffalo_l", [tmp_path])
    assert str(error.value).count("lacks") == 1


def test_a_pack_without_the_pose_model_works_without_pose(models_root, tmp_path, astronaut, seen):
    shutil.copytree(models_root / "models" / "buffalo_l", tmp_path / "buffalo_l")
    (tmp_path / "buffalo_l" / "1k3d68.onnx").unlink()
    (found,) = detection.load_detector(roots=[tmp_path], provider="CPU").detect(astronaut)
    assert found.pose is None and np.array_equal(found.landmarks, seen.landmarks)


def test_nothing_is_asked_of_the_network(models_root, tmp_path, astronaut, seen, monkeypatch):
    """Neither loading nor looking reaches out, and a pack that is missing is an error, not a download."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(AssertionError, match="the network was asked"):  # the block works
        urllib.request.urlopen("http://example.org", timeout=1)
    (found,) = detection.load_detector(roots=[models_root], provider="CPU").detect(astronaut)
    assert np.array_equal(found.identity, seen.identity)
    for pack in ("buffalo_l", "antelopev2", str(tmp_path / "buffalo_l")):
        with pytest.raises(DynamicIDError, match="was not found"):
            detection.load_detector(pack, [tmp_path])
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_misnamed_models_are_named(models_root, tmp_path):
    folder = tmp_path / "buffalo_l"
    shutil.copytree(models_root / "models" / "buffalo_l", folder)
    whole = (folder / "w600k_r50.onnx").read_bytes()
    (folder / "w600k_r50.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DynamicIDError, match="w600k_r50.onnx cannot be loaded.*buffalo_l.zip"):
        detection.load_detector(roots=[tmp_path], provider="CPU")
    shutil.copy(folder / "2d106det.onnx", folder / "w600k_r50.onnx")
    with pytest.raises(DynamicIDError, match="named like a recognition model, but is for landmark_2d_106"):
        detection.load_detector(roots=[tmp_path], provider="CPU")


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
    with pytest.raises(
        DynamicIDError, match=f"needs the Python package {package}.*pip install insightface onnxruntime"
    ):
        detection.load_detector(roots=[models_root])


def test_providers_are_chosen_among_those_that_are_there(monkeypatch):
    import onnxruntime

    def here(*names):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [f"{n}ExecutionProvider" for n in names])

    here("Dml", "Azure", "CPU")
    assert detection.choose_providers() == ["DmlExecutionProvider", "CPUExecutionProvider"]
    assert detection.choose_providers("cpu") == ["CPUExecutionProvider"]
    here("CPU", "CoreML", "CUDA")
    assert detection.choose_providers("auto") == [f"{n}ExecutionProvider" for n in ("CUDA", "CoreML", "CPU")]
    assert detection.choose_providers("CoreML")[0] == "CoreMLExecutionProvider"
    here("CPU")
    assert detection.choose_providers() == ["CPUExecutionProvider"]
    for provider in ("CUDA", "TensorRT"):
        with pytest.raises(DynamicIDError, match=f"'{provider}' is not available.*which has: CPU"):
            detection.choose_providers(provider)


CUDA, COREML, CPU = (f"{name}ExecutionProvider" for name in ("CUDA", "CoreML", "CPU"))


@pytest.fixture
def broken(monkeypatch) -> dict[str, str]:
    """Provider -> when it fails: "quietly" as onnxruntime does without its libraries, "loading", or "running".

    Sessions run on the CPU, whatever they say: this machine has nothing else.
    """
    import onnxruntime
    from insightface.model_zoo import model_zoo

    failing: dict[str, str] = {}

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, providers=(), **_):
            self.said = list(providers)
            when = failing.get(self.said[0])
            if when == "loading":
                raise RuntimeError("no device")
            if when == "quietly":
                self.said = [CPU]
            super().__init__(path, providers=[CPU])

        def get_providers(self):
            return self.said

        def run(self, *arguments, **options):
            if failing.get(self.said[0]) == "running":
                raise RuntimeError("CUDA failure 2: out of memory")
            return super().run(*arguments, **options)

    monkeypatch.setattr(model_zoo, "PickableInferenceSession", Session)
    monkeypatch.setattr(model_zoo, "_managed_detection_session", lambda path, how, **_: Session(path, **how))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, COREML, CPU])
    return failing


@pytest.mark.parametrize("when", ["quietly", "loading", "running"])
@pytest.mark.parametrize("failing, said", [([CUDA], ["CUDA"]), ([CUDA, COREML], ["CUDA", "CoreML"])])
def test_the_next_provider_takes_over_and_it_is_said_once(models_root, broken, astronaut, seen, when, failing, said):
    broken |= dict.fromkeys(failing, when)
    told: list[str] = []
    detector = detection.load_detector(roots=[models_root], warn=told.append)
    for _ in range(3):
        (found,) = detector.detect(astronaut)
        np.testing.assert_array_equal(found.identity, seen.identity)
    assert detector.identity_at(astronaut, seen.keypoints) is not None
    assert [message.split(" with ")[1].split(" (")[0] for message in told] == said
    assert told[-1].endswith(f"from now on {'CPU' if len(failing) > 1 else 'CoreML'} does it.")
    reason = {"quietly": "cannot start it here", "loading": "no device", "running": "CUDA failure 2: out of memory"}
    assert all(reason[when] in message for message in told)


def test_several_threads_see_one_provider_fail(models_root, broken, astronaut, seen):
    told: list[str] = []
    detector = detection.load_detector(roots=[models_root], warn=told.append)
    broken[CUDA] = "running"
    found: list[list[DetectedFace]] = []
    threads = [threading.Thread(target=lambda: found.append(detector.detect(astronaut))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(len(faces) == 1 for faces in found) and len(told) == 1


def test_the_last_provider_s_failure_is_an_error(models_root, broken, astronaut):
    told: list[str] = []
    detector = detection.load_detector(roots=[models_root], provider="CPU", warn=told.append)
    broken[CPU] = "running"
    with pytest.raises(RuntimeError, match="out of memory"):
        detector.detect(astronaut)
    broken |= dict.fromkeys((CUDA, COREML, CPU), "loading")
    with pytest.raises(DynamicIDError, match="cannot be loaded .no device"):
        detection.load_detector(roots=[models_root], warn=told.append)
    assert not told, "a damaged file is no provider's fault"


# --- recognisers --------------------------------------------------------------------------------------------------


def test_a_detector_says_whose_identities_it_gives(models_root, tmp_path):
    """By the recogniser's file where packs share it, else by the pack's folder; what it is called can be typed."""
    assert detection.load_detector(roots=[models_root], provider="CPU").recogniser == "buffalo_l"
    assert detection.load_detector("buffalo_l (bgr)", [models_root], "CPU").recogniser == "buffalo_l (bgr)"
    for folder, file, expected in (
        ("renamed", "w600k_r50.onnx", "buffalo_l"),
        ("small", "w600k_mbf.onnx", "buffalo_s"),
        ("AuraFace", "glintr100.onnx", "AuraFace"),
    ):
        pack = tmp_path / folder
        pack.mkdir()
        for task, path in detection.find_pack(roots=[models_root]).items():
            (pack / (file if task == "recognition" else path.name)).write_bytes(path.read_bytes())
        assert detection.load_detector(str(pack), provider="CPU").recogniser == expected
