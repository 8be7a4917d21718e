"""An evaluation of real faces: scenes in which people are swapped, doubled, missing and blended give what they must."""

from __future__ import annotations

import json
import re
from pathlib import Path

import group_photo
import numpy as np
import pytest

from dynamicid_core.command_line import main
from dynamicid_core.evaluation.recognisers import SAME_DISTANCE, DlibRecogniser
from dynamicid_core.evaluation.results import PictureResult, Run, read_run
from dynamicid_core.scoring import SAME_PERSON

pytest.importorskip("dlib")
pytest.importorskip("face_recognition_models")
pytest.importorskip("insightface")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the scenes, evaluated as a user does it."""
    folder = tmp_path_factory.mktemp("faces")
    group_photo.write_scenes(folder / "scenes")
    assert main(["evaluate", str(folder / "scenes"), "-o", str(folder / "out"), "--recognisers", "dlib", "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def judged(folder) -> Run:
    return read_run(folder / "out")


def values(judged: Run, name: str) -> dict:
    return picture(judged, name).recognisers["dlib"].values


def picture(judged: Run, name: str) -> PictureResult:
    (found,) = [picture for picture in judged.pictures if picture.id == name]
    return found


@pytest.fixture(scope="module")
def dlib() -> DlibRecogniser:
    return DlibRecogniser()


@pytest.fixture(scope="module")
def descriptors(dlib) -> tuple[np.ndarray, np.ndarray]:
    """Of each person's portrait and of its mirror image, [6, 128] each."""
    kinds = []
    for make in (group_photo.portrait, group_photo.mirrored):
        found = [dlib.detect(np.asarray(make(number))) for number in range(6)]
        assert [len(faces) for faces in found] == [1] * 6
        kinds.append(np.stack([faces[0].identity for faces in found]))
    return kinds[0], kinds[1]


# --- dlib's scale -------------------------------------------------------------------------------------------------


def test_similarity_has_the_threshold_of_other_recognisers(dlib):
    apart = np.zeros((3, 128), np.float32)
    apart[1, 0], apart[2, 5] = SAME_DISTANCE, 5
    np.testing.assert_allclose(dlib.similarity(apart[:1], apart), [[1, SAME_PERSON, -1]], atol=1e-6)
    assert dlib.similarity(apart, np.zeros((0, 128), np.float32)).shape == (3, 0)


def test_people_are_told_apart(dlib, descriptors):
    """As on the photo itself: mirrored selves lie near 1, different people around 0, and all below the threshold."""
    similarity = dlib.similarity(*descriptors)
    same, others = np.diagonal(similarity), similarity[~np.eye(6, dtype=bool)]
    assert same.min() > 0.8 and others.max() < SAME_PERSON and abs(others.mean()) < 0.2


def test_faces_say_where_they_are(dlib):
    (face,) = dlib.detect(np.asarray(group_photo.portrait(0)))
    assert face.identity.shape == (128,) and face.landmarks is None and face.pose is None
    left, right, nose = face.keypoints[:3]
    assert left[0] < nose[0] < right[0] and nose[1] > max(left[1], right[1])
    assert face.box[0] < left[0] and right[0] < face.box[2]


def test_the_slower_detector_finds_the_same_face(dlib):
    small = np.asarray(group_photo.portrait(1))
    (one,), (other,) = dlib.detect(small), DlibRecogniser(cnn=True).detect(small)
    assert np.abs(np.subtract(one.center, other.center)).max() < 20
    assert dlib.similarity(one.identity[None], other.identity[None])[0, 0] > 0.8


# --- Scenes -------------------------------------------------------------------------------------------------------


def test_right_people_in_their_places(judged):
    right = values(judged, "right")
    assert right["matched"] > 0.85 and abs(right["blending"]) < 0.2 and right["id_conf"] > 0.8
    assert [right[key] for key in ("count", "place", "identified")] == [1, 1, 1]
    three = values(judged, "three")
    assert three["matched"] > 0.8 and [three[key] for key in ("count", "place", "identified")] == [1, 1, 1]


def test_ground_truth_tells_a_likeness_from_a_copy(judged):
    right, copied = values(judged, "right"), values(judged, "copied")
    assert right["sim_gt"] == pytest.approx(1) and right["copy_paste"] == pytest.approx(-1)
    assert copied["sim_ref"] > copied["sim_gt"] and copied["copy_paste"] > 0.5
    assert right["sim_ref"] == pytest.approx(right["matched"])
    assert "sim_gt" not in values(judged, "swapped")


def test_swapped_people_are_right_but_not_in_their_places(judged):
    swapped = values(judged, "swapped")
    assert swapped["matched"] == pytest.approx(values(judged, "right")["matched"], abs=0.03)
    assert swapped["place"] == 0 and swapped["count"] == swapped["identified"] == 1


def test_doubled_people_are_counted(judged):
    doubled = values(judged, "doubled")
    assert doubled["count"] == 0 and doubled["matched"] > 0.85
    assert doubled["id_conf"] < values(judged, "right")["id_conf"] - 0.3  # two faces claim to be ann
    again = [face.again for face in picture(judged, "doubled").recognisers["dlib"].faces]
    assert sorted(again, key=str) == [0, None, None]


def test_missing_people_count_zero(judged):
    missing, right = values(judged, "missing"), values(judged, "right")
    ann, ben = picture(judged, "missing").recognisers["dlib"].people
    assert ben.face is None and ben.similarity == 0 and missing["matched"] == pytest.approx(ann.similarity / 2)
    assert (missing["count"], missing["place"], missing["identified"], missing["id_conf"]) == (0, 0.5, 0.5, 0)
    assert missing["matched"] < right["matched"] - 0.4
    nobody = values(judged, "nobody")
    assert (nobody["matched"], nobody["count"], nobody["place"], nobody["identified"]) == (0, 0, 0, 0)


def test_blended_people_are_neither(judged):
    blended, right = values(judged, "blended"), values(judged, "right")
    assert blended["count"] == 1
    assert blended["blending"] > right["blending"] + 0.2
    assert blended["id_conf"] < 0.2 and blended["matched"] < right["matched"] - 0.3


def test_strangers_are_nobody(judged):
    strangers = values(judged, "strangers")
    assert strangers["count"] == 1 and strangers["matched"] < 0.2 and strangers["identified"] == 0


def test_change_is_measured_outside_the_people_alone(judged):
    """The strip above the people differs by a fifth, and heads, which reach into it, do not count."""
    assert picture(judged, "right").values["outside"] == pytest.approx(0.2)


def test_everybody_of_the_pictures_is_the_gallery(judged):
    assert judged.gallery == 6 and len(judged.pictures) == len(group_photo.scenes())


# --- What is written ----------------------------------------------------------------------------------------------


def test_report_shows_pictures_worst_first_and_needs_nothing_else(folder, judged):
    report = (folder / "out/report.html").read_text(encoding="utf-8")
    shown = re.findall(r"<header><b>(\w+)</b>", report)
    failures = {"nobody", "strangers", "blended", "missing", "doubled"}
    assert shown[0] in ("strangers", "nobody") and set(shown[:5]) == failures and len(shown) == len(judged.pictures)
    assert "ann again" in report and "1 face instead of 2" in report and "3 faces instead of 2" in report
    assert "missing</span>" in report and "ground truth" in report and "95% bootstrap" in report
    assert not re.findall(r"(?:src|href)=\"(?!data:)", report) and "http" not in report


def test_tables_and_json_say_the_same(folder, judged, capsys):
    code = main(
        ["evaluate", str(folder / "scenes"), "-o", str(folder / "out"), "--recognisers", "dlib", "-q", "--json"]
    )
    said = json.loads(capsys.readouterr().out)
    assert code == 0 and said["pictures"] == len(judged.pictures)
    (row,) = [row for row in said["table"] if (row["group"], row["metric"]) == ("all", "count")]
    expected = np.mean([values(judged, picture.id)["count"] for picture in judged.pictures])
    assert row["mean"] == pytest.approx(expected) and row["low"] < row["mean"] < row["high"]
    assert f"| Count accuracy \u2191     | dlib       | {100 * expected:.0f}% [" in Path(said["markdown"]).read_text(
        "utf-8"
    )
    assert {group["group"] for group in said["table"]} == {"all", "1 person", "2 people", "3 people"}


def test_what_was_seen_is_not_looked_for_again(folder, judged, monkeypatch):
    def never(self, image):
        raise AssertionError("looked again")

    monkeypatch.setattr(DlibRecogniser, "detect", never)
    words = [
        "evaluate",
        str(folder / "scenes" / "list.jsonl"),
        "-o",
        str(folder / "out"),
        "--recognisers",
        "dlib",
        "-q",
    ]
    assert main([*words, "--show", "0"]) == 0
    assert read_run(folder / "out") == judged
    assert "<header>" not in (folder / "out/report.html").read_text(encoding="utf-8")


def test_gallery_makes_it_harder_not_different(folder, judged, tmp_path):
    (tmp_path / "more" / "twin").mkdir(parents=True)
    group_photo.mirrored(0).save(tmp_path / "more" / "twin" / "photo.png")  # nearer to the faces than ann's own photo
    words = ["evaluate", str(folder / "scenes"), "-o", str(folder / "out"), "--recognisers", "dlib", "-q"]
    assert main([*words, "--gallery", str(tmp_path / "more"), "--name", "with twin"]) == 0
    again = read_run(folder / "out")
    assert again.name == "with twin" and again.gallery == 7
    assert (
        values(again, "right")["identified"] == 0.5
        and values(again, "right")["matched"] == values(judged, "right")["matched"]
    )
