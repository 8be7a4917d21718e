"""Drawn people: the same everywhere, the same person in every expression, with labels that are true of the pixels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from dynamicid_core.command_line import main
from dynamicid_core.datasets.manifest import Manifest
from dynamicid_core.drawn.canvas import draw_picture
from dynamicid_core.drawn.identity import identity_vector
from dynamicid_core.drawn.make import make_dataset, portrait, posed
from dynamicid_core.drawn.people import HELD_OUT, VALIDATION, YAWS, Clothes, Motion, draw_identity, draw_motion
from dynamicid_core.drawn.scene import Background, Figure, Scene, draw_scene, lacks, looks, told
from dynamicid_core.landmarks import EXPRESSIONS, expression_measures, read_expression
from dynamicid_core.prompts import GRID_POSES
from dynamicid_core.types import DynamicIDError

PICTURES = "f4d7032b55932c91"


def alone(seed: int, motion: Motion, size: float = 0.33) -> Scene:
    return Scene((Figure(draw_identity(seed), motion, Clothes("red", "plain"), 0.5, 0.5, size),), Background())


def test_a_seed_is_the_same_picture_on_every_machine() -> None:
    digest = hashlib.sha256()
    for people in (1, 2, 3, 4):
        digest.update(draw_picture(draw_scene(7, people), 64).picture.tobytes())
    assert digest.hexdigest()[:16] == PICTURES


def test_people_differ() -> None:
    assert len({draw_identity(seed) for seed in range(300)}) == 300
    vectors = np.stack([identity_vector(draw_identity(seed)) for seed in range(200)])
    alike = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(alike), 1, rtol=1e-5)
    strangers = alike[~np.eye(200, dtype=bool)]
    assert abs(strangers.mean()) < 0.05 and strangers.max() < 0.95


def test_scenes_of_training_show_no_held_out_person() -> None:
    allowed = {draw_identity(seed) for seed in range(9000, 9010)}
    shown = {figure.identity for seed in range(20) for figure in draw_scene(seed, 2, seeds=(9000, 9010)).figures}
    assert shown <= allowed and VALIDATION == 9000 and HELD_OUT == 10_000


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_landmarks_show_the_expression_in_every_pose(expression: str) -> None:
    read = [
        read_expression(
            draw_picture(alone(seed, draw_motion(np.random.default_rng(seed), expression, pose)), 64).landmarks[0]
        )
        for seed in range(8)
        for pose in GRID_POSES
    ]
    assert read.count(expression) >= 39  # of 40


def test_intensity_goes_all_the_way_from_neutral() -> None:
    corners = [
        expression_measures(draw_picture(alone(3, Motion("happy", k)), 256).landmarks[0])["corners"]
        for k in (0, 0.3, 0.6, 1, 1.3)
    ]
    assert all(before < after for before, after in pairwise(corners))
    still = [draw_picture(alone(3, Motion(expression, 0.0))).picture for expression in EXPRESSIONS]
    assert all(np.array_equal(still[0], other) for other in still)


def test_the_head_turns_steadily_from_left_to_right() -> None:
    yaws = [sum(YAWS[pose]) / 2 for pose in sorted(YAWS, key=lambda pose: sum(YAWS[pose]))]
    nose = []
    for yaw in np.linspace(yaws[0], yaws[-1], 21):
        points = draw_picture(alone(5, Motion(yaw=float(yaw))), 256).landmarks[0]
        nose.append(points[86, 0] - (points[1, 0] + points[17, 0]) / 2)
    assert all(before < after for before, after in pairwise(nose))
    assert [Motion(yaw=yaw).pose for yaw in yaws] == [
        "fully turned to the left", "slightly turned to the left", "front view", "slightly turned to the right",
        "fully turned to the right",
    ]  # fmt: skip


def test_landmarks_lie_in_the_face_that_the_mask_shows() -> None:
    for seed in range(6):
        scene = draw_scene(seed, 1)
        drawn = draw_picture(scene, 256, masks=True)
        x, y = np.clip(drawn.landmarks[0].round().astype(int), 1, 254).T
        near = np.stack([drawn.people[y + dy, x + dx] for dx in (-1, 0, 1) for dy in (-1, 0, 1)]).max(0)
        assert near[np.r_[33:106]].all()  # all but the contour, which is the face's edge
        x0, y0, x1, y1 = drawn.boxes[0]
        assert 0 <= x0 < x1 <= 256 and (drawn.landmarks[0] >= (x0, y0)).all() and (drawn.landmarks[0] <= (x1, y1)).all()


def test_masks_say_whom_a_pixel_shows() -> None:
    first, second = draw_identity(1), draw_identity(2)
    figures = [Figure(who, Motion(), Clothes("red", "plain"), x, 0.5, 0.3) for who, x in ((first, 0.4), (second, 1.1))]
    both = draw_picture(Scene(tuple(figures), Background(), 1.5), masks=True)
    assert set(np.unique(both.people)) == {0, 1, 2}
    alone_left = draw_picture(Scene((figures[0],), Background(), 1.5))
    gone = (both.picture != alone_left.picture).any(-1)
    assert (both.people[gone] == 2).mean() > 0.97  # but for a rim of mixed pixels
    assert ((both.people == 2) & ~gone).sum() < 0.02 * gone.sum() + 20
    assert set(np.unique(both.faces[both.people == 1])) <= {0, 1}


def test_a_person_is_the_same_in_every_expression_and_pose() -> None:
    """Hair, hat and skin far from the features stay where they are; the identity does not know of motions."""
    person, other = (
        draw_picture(alone(4, Motion(expression))).picture.astype(int) for expression in ("neutral", "sad")
    )
    stranger = draw_picture(alone(11, Motion("neutral"))).picture.astype(int)
    assert np.abs(person - other).mean() < 0.3 * np.abs(person - stranger).mean()
    left, right = (portrait(4, posed("happy", pose), 64) for pose in ("fully turned to the left", "front view"))
    assert np.array_equal(left[:2, :2], right[:2, :2]) and not np.array_equal(left, right)


def test_captions_say_what_is_drawn_and_never_who() -> None:
    scene = Scene(
        (Figure(draw_identity(0), Motion("anger", yaw=-30), Clothes("teal", "striped"), 0.5, 0.5, 0.3),),
        Background("window", "pink", "lamp", "green"),
    )
    assert scene.caption() == (
        "a drawing of one person, angry, slightly turned to the left, teal striped shirt, pink wall with window, green lamp"
    )
    assert scene.caption(frozenset()) == "a drawing of one person"
    several = draw_scene(3, 3)
    moods = {figure.motion.expression for figure in several.figures}
    assert several.caption().startswith("a drawing of three people") and (len(moods) == 1) == (
        "happy" in several.caption()
    )
    assert replace(scene, figures=(replace(scene.figures[0], identity=draw_identity(1)),)).caption() == scene.caption()


def test_looks_are_told_and_what_is_not_there() -> None:
    who = replace(
        draw_identity(0),
        cut="bald",
        hat="cap",
        hat_paint="red",
        beard="none",
        glasses="round",
        glasses_paint="white",
        mark="mole",
    )
    assert looks(who)[1:] == ("bald", "red cap", "white round glasses", "mole")
    assert lacks(who) == ("no beard",)
    bare = replace(who, hat="none", beard="full", glasses="none", mark="none")
    assert told(bare)["mark"] == "" and len(looks(bare)) == 3
    assert looks(bare)[2].startswith("full ") and lacks(bare) == ("no hat", "no glasses")


def test_a_training_set_has_exact_labels(tmp_path) -> None:
    made = make_dataset(tmp_path, (0, VALIDATION), 5, 64)
    read = Manifest.read(tmp_path)
    others = make_dataset(tmp_path / "by two", (0, VALIDATION), 5, 64, workers=2)
    assert [photo.id for photo in others.photos] == [photo.id for photo in made.photos]
    assert [photo.id for photo in read.taken] == [photo.id for photo in made.photos] and len(read.taken) == 10
    assert {person: len(photos) for person, photos in read.people("train").items()} == {"drawn_000000": 5}
    for photo in read.taken:
        assert (
            read.open(photo).shape == (64, 64, 3)
            and hashlib.sha256((tmp_path / photo.path).read_bytes()).hexdigest() == photo.id
        )
        assert (
            read_expression(photo.landmarks) == photo.expression
            and 0 < photo.landmarks.min() < photo.landmarks.max() < 1.2
        )


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(DynamicIDError, match="Expression 'joy' is unknown"):
        Motion("joy")
    with pytest.raises(DynamicIDError, match="Pose 'up' is unknown"):
        posed("happy", "up")
    with pytest.raises(DynamicIDError, match="of 5 px cannot be made"):
        portrait(1, Motion(), 5)


def drawn(capsys, *words) -> tuple[int, str]:
    code = main(["drawn", *map(str, words), "-q"])
    return code, capsys.readouterr().err.strip()


def test_drawn_pictures_and_sets_replace_their_own_kind_alone(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("anna.png", "anna.jpg", "new/anna.webp"):
        for _ in range(2):
            assert drawn(capsys, "make", name, "--size", 32)[0] == 0
    Image.new("RGB", (32, 32)).save("photo.png")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "thesis.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("dynamicid_core.drawn.make.portrait", lambda *_: pytest.fail("drawn before it was looked"))
    for words, said in (
        (["make", "photo.png"], "photo.png is there already and is not a picture that DynamicID made"),
        (["make", "photo.png/anna.png"], "could not be written: Not a directory"),
        (["make", "anna.docx"], "anna.docx is no kind of picture that is known here"),
        (["make", "mixed"], "mixed holds other things (thesis.txt); name a new or empty folder."),
        (["make", "sheet.png", "--seeds", "0-9999"], "A sheet of 10000 people is too tall"),
        (["train", "unet", "--output", "photo.png"], "photo.png is a file, not a folder"),
        (["train", "unet", "--output", "run", "--seed", 2**70], "must lie between 0 and 2^53"),
        (["carry", "photo.png", "--unet", "run"], "photo.png is a file, not a folder"),
        (["fill", "photo.png"], "photo.png is a file, not a folder"),
    ):
        code, err = drawn(capsys, *words)
        assert code == 1 and said in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_set_of_drawn_people_may_be_made_again(tmp_path, capsys) -> None:
    for _ in range(2):
        assert drawn(capsys, "make", tmp_path / "set", "--seeds", "0-1", "--per-person", 1, "--size", 32)[0] == 0
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "drawn_000000",
        "drawn_000001",
        "manifest.parquet",
    ]
