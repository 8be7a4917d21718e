"""`evaluate` as a user types it: lists of every kind, pictures that remember, pictures to be made, runs compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluating import failure, run
from PIL import Image
from standins import pipeline as standins
from standins.portraits import draw_portrait

from dynamicid_core.command_line.asked import case_of, cases_of
from dynamicid_core.command_line.settings import PersonSettings, Settings, write_png
from dynamicid_core.evaluation.cases import Case, Reference, gallery_of, read_cases, who_is_who
from dynamicid_core.evaluation.clip import ClipScore
from dynamicid_core.evaluation.readings import LandmarkReader, expression_word, load_reader, pose_word, shown_pose
from dynamicid_core.evaluation.recognisers import PackRecogniser
from dynamicid_core.evaluation.results import MARK, check_output
from dynamicid_core.evaluation.run import Tools, evaluate, with_names
from dynamicid_core.evaluation.store import Store, pack_faces, unpack_faces
from dynamicid_core.evaluation.workers import Workers
from dynamicid_core.face_files import save_face
from dynamicid_core.faces import DetectedFace
from dynamicid_core.types import DynamicIDError, Face

pytest.importorskip("diffusers")
pytest.importorskip("insightface")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with photos of three people."""
    monkeypatch.chdir(tmp_path)
    for name in ("DYNAMICID_MODELS", "COMFYUI_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for number, name in enumerate(("anna", "ben", "cleo")):
        draw_portrait(number, 128).save(f"{name}.png")
    return tmp_path


# --- Lists --------------------------------------------------------------------------------------------------------

LISTS = {
    "list.jsonl": """
{"picture": "p.png", "prompt": "two, at a cafe", "ground_truth": "cleo.png", "baseline": "anna.png", "id": "cafe", "people": [
 {"photos": ["anna.png", "ben.png"], "box": [0, 0, 0.5, 1], "expression": "happy", "pose": "front view"}, "cleo.png"]}
""".replace("\n", " "),
    "list.json": """[{"picture": "p.png", "prompt": "two, at a cafe", "ground_truth": "cleo.png", "baseline": "anna.png",
 "id": "cafe", "people": [["anna.png", "ben.png"], "cleo.png"], "boxes": [[0, 0, 0.5, 1], null],
 "expressions": ["happy", ""], "poses": ["front view", ""]}]""".replace(
        '[["anna.png", "ben.png"], "cleo.png"]', '[{"photos": ["anna.png", "ben.png"]}, "cleo.png"]'
    ),
    "list.csv": 'picture,people,boxes,expressions,poses,prompt,ground_truth,baseline,id\n'
    'p.png,anna.png + ben.png; cleo.png,"0,0,0.5,1; ",happy; ,front view; ,"two, at a cafe",cleo.png,anna.png,cafe\n',
    "list.toml": """
[[pictures]]
picture = "p.png"
prompt = "two, at a cafe"
ground_truth = "cleo.png"
baseline = "anna.png"
id = "cafe"
people = [
  {photos = ["anna.png", "ben.png"], box = [0, 0, 0.5, 1], expression = "happy", pose = "front view"},
  {photos = "cleo.png"},
]
""",
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_all_kinds_say_the_same(folder, name):
    draw_portrait(1).save("p.png")
    Path(name).write_text(LISTS[name], encoding="utf-8")
    for given in (Path(name), folder):  # by name, or as that of a folder
        (case,) = cases_of([given])
        assert case.name == "cafe" and case.prompt == "two, at a cafe"
        assert [path.name for path in (case.picture, case.ground_truth, case.baseline)] == [
            "p.png",
            "cleo.png",
            "anna.png",
        ]
        first, second = case.people
        assert [path.name for path in first.photos] == ["anna.png", "ben.png"] and first.box == (0, 0, 0.5, 1)
        assert (first.expression, first.pose) == ("happy", "front view")
        assert second.photos[0].name == "cleo.png" and second.box is None and second.label == "cleo"


@pytest.mark.parametrize(
    "row, said",
    [
        ({"people": ["anna.png"]}, "must name a picture and its people"),
        ({"picture": "q.png", "people": ["anna.png"]}, "no picture q.png"),
        ({"picture": "ben.png", "people": ["nobody.png"]}, "no photo nobody.png"),
        ({"picture": "ben.png", "people": ["anna.png"], "boxes": []}, "1 people but 0 boxes"),
        ({"picture": "ben.png", "people": ["anna.png"], "boxes": [[0, 0, 2, 1]]}, "fractions of the picture"),
        ({"picture": "ben.png", "people": ["anna.png"], "poses": ["upside down"]}, "names none of"),
        ({"picture": "ben.png", "people": ["anna.png"], "mood": 1}, "'mood' means nothing here"),
    ],
)
def test_errors_in_lists_say_where(folder, capsys, row, said):
    Path("list.jsonl").write_text('{"picture": "ben.png", "people": ["anna.png"]}\n' + json.dumps(row))
    message = failure(capsys, "list.jsonl", "--recognisers", "dlib")
    assert message.startswith("Picture 2 of list.jsonl: ") and said in message


def test_unreadable_lists(folder, capsys):
    Path("list.jsonl").write_text('{"picture": 1}\n{oops')
    assert "line 2" in failure(capsys, "list.jsonl", "--recognisers", "dlib")
    Path("list.toml").write_text("a = 1")
    assert "one list of tables" in failure(capsys, "list.toml", "--recognisers", "dlib")
    assert "There is no list nothing.csv" in failure(capsys, "nothing.csv", "--recognisers", "dlib")
    assert failure(capsys, "nothing.png", "--recognisers", "dlib") == "There is no file nothing.png."
    Path("empty.csv").write_text("picture,people\n")
    assert "is empty" in failure(capsys, "empty.csv", "--recognisers", "dlib")


def test_a_folder_of_people(folder):
    (folder / "faces/dora").mkdir(parents=True)
    draw_portrait(0).save("faces/dora/1.jpg")
    draw_portrait(0).save("faces/dora/2.jpg")
    draw_portrait(1).save("faces/anna.png")
    assert gallery_of(Path("faces")) == [
        Reference((Path("faces/anna.png"),), "anna"),
        Reference((Path("faces/dora/1.jpg"), Path("faces/dora/2.jpg")), "dora"),
    ]
    Path("list.csv").write_text("picture,people\nanna.png,faces/dora\n")
    assert read_cases(Path("list.csv"))[0].people[0].label == "dora"


def test_people_are_one_by_name_or_by_photo():
    anna, same_photo, same_name, ben, both = (
        Reference(tuple(map(Path, photos)), name)
        for photos, name in (
            (["a.png"], ""),
            (["a.png"], "Anna"),
            (["a2.png"], "Anna"),
            (["b.png"], ""),
            (["b.png"], "Ben"),
        )
    )
    second = Reference((Path("b.png"),), index=1)  # another face of that photo
    who = who_is_who([anna, ben, second, same_name, same_photo, both])
    assert who[anna] == who[same_photo] == who[same_name] and who[ben] == who[both]
    assert len(set(who.values())) == 3


# --- Pictures that remember ---------------------------------------------------------------------------------------


def remembering(path: str, **changes) -> Path:
    people = (
        PersonSettings(("anna.png",), box=(0, 0, 0.5, 1), expression="a very surprised expression, front view"),
        PersonSettings(("ben.png", "cleo.png"), name="Ben", index=1),
    )
    settings = dataclasses.replace(Settings(people=people, prompt="two people"), **changes)
    return write_png(Path(path), draw_portrait(0, 64), settings)


def test_our_pictures_say_who_was_asked_for(folder):
    remembering("out/a.png", photos={"order": "left-right"})
    draw_portrait(0).save("out/a_regions.png")  # of --explain
    (case,) = cases_of([Path("out")])
    assert case == cases_of(sorted(Path("out").glob("*.png")))[0]
    anna, ben = case.people
    assert case.prompt == "two people" and case.name == "a"
    assert (anna.photos, anna.box, anna.index) == ((Path("anna.png"),), (0, 0, 0.5, 1), 0)
    assert (ben.photos, ben.name, ben.index) == ((Path("ben.png"), Path("cleo.png")), "Ben", 1)
    assert {anna.order, ben.order} == {"left-right"}
    assert expression_word(anna.expression) == "surprise" and pose_word(anna.expression) == "front view"


def test_masks_become_the_bounds_of_their_white(folder):
    mask = np.zeros((40, 80), np.uint8)
    mask[10:20, 20:60], mask[0, 0] = 255, 90
    Image.fromarray(mask).save("mask.png")
    remembering("a.png", people=(PersonSettings(("anna.png",), mask="mask.png"),))
    assert case_of(Path("a.png")).people[0].box == (0.25, 0.25, 0.75, 0.5)


def test_pictures_that_cannot_say(folder, capsys):
    assert "Say in a list" in failure(capsys, "anna.png", "--recognisers", "dlib")
    remembering("a.png", people=())
    assert "remembers nobody" in failure(capsys, "a.png", "--recognisers", "dlib")
    remembering("b.png", people=(PersonSettings(("gone.png",)),))
    assert "made with gone.png, which is neither in this folder nor beside the picture" in failure(
        capsys, "b.png", "--recognisers", "dlib"
    )
    Path("faces/cleo").mkdir(parents=True)
    Path("cleo.png").rename("faces/cleo/cleo.png")
    remembering("c.png", people=(PersonSettings(("somewhere/cleo.png",)),))
    assert "c.png was made with cleo.png, which is neither in" in failure(capsys, "c.png", "--recognisers", "dlib")
    assert case_of(Path("c.png"), Path("faces")).people[0].photos == (Path("faces/cleo/cleo.png"),)


def test_results_replace_no_others(folder, capsys):
    """Said before anything is judged; what an evaluation wrote there, another may replace."""
    remembering("a.png")
    Path("out").mkdir()
    Path("out/table.csv").write_text("somebody's")
    words = ["a.png", "--recognisers", "dlib", "-o"]
    assert "out/table.csv is there already and is not of an evaluation" in failure(capsys, *words, "out")
    assert "a.png is a file; give --output a folder" in failure(capsys, *words, "a.png")
    assert "could not be written" in failure(capsys, *words, "a.png/out")
    assert Path("out/table.csv").read_text() == "somebody's" and len(list(Path("out").iterdir())) == 1
    Path("out/report.html").write_text(f"<html>{MARK}")
    check_output(Path("out"))
    Path("out/report.html").write_text("<html>")
    with pytest.raises(DynamicIDError, match="is not of an evaluation"):
        check_output(Path("out"))


# --- Judges -------------------------------------------------------------------------------------------------------


def face_at(x: float, identity: np.ndarray, yaw: float = 0.0) -> DetectedFace:
    return DetectedFace((x, 10, x + 20, 30), 0.9, np.zeros((5, 2), np.float32), identity.astype(np.float32),
                        np.full((106, 2), x, np.float32), (0.0, yaw, 0.0))  # fmt: skip


class ByColour:
    """A detector of coloured squares of 20 px: red and green are people, and look to the right or the left."""

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        faces = []
        for channel, yaw in ((0, 30.0), (1, -70.0)):
            columns = np.flatnonzero((image[20] == 255 * np.eye(3)[channel]).all(-1))
            if len(columns):
                faces.append(face_at(float(columns[0]), np.eye(3)[channel], yaw))
        return faces


class ByPlace:
    name, landmarks = "by place", False

    def read(self, image, face):
        return "happy" if face.box[0] < 50 else None


def colours(path: str, *squares: tuple[int, tuple[int, int, int]], size=(100, 40)) -> Path:
    picture = Image.new("RGB", size, (40, 40, 40))
    for x, colour in squares:
        picture.paste(Image.new("RGB", (20, 20), colour), (x, 10))
    picture.save(path)
    return Path(path)


RED, GREEN = (255, 0, 0), (0, 255, 0)


def test_expression_and_pose_agree_with_what_was_asked_for(folder):
    """Two people: one happy and turned as asked, one neither; whoever is missing counts as wrong."""
    colours("red.png", (40, RED))
    colours("green.png", (40, GREEN))
    colours("both.png", (10, RED), (70, GREEN))
    colours("one.png", (10, RED))
    rows = [
        {"picture": f"{name}.png", "people": ["red.png", "green.png"], "expressions": ["happy", "happy"],
         "poses": ["slightly turned to the right", "front view"]} for name in ("both", "one")
    ]  # fmt: skip
    rows.append({"picture": "red.png", "people": ["green.png"], "baseline": "one.png"})
    Path("list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tools = Tools((PackRecogniser("colours", ByColour()),), ByPlace())
    made = evaluate(read_cases(Path("list.jsonl")), tools, Store(Path("cache")), Workers(quiet=True))
    both, one, red = made.pictures
    assert both.values == {"expression": 0.5, "pose": 0.5} and one.values == both.values
    assert both.recognisers["colours"].values["matched"] == 1 and one.recognisers["colours"].values["matched"] == 0.5
    assert one.recognisers["colours"].values["count"] == 0 and red.recognisers["colours"].values["identified"] == 0
    assert red.values == {"outside": 0}  # the two squares are heads, and nothing else differs


def test_notes_say_what_could_not_be_measured(folder):
    colours("grey.png")
    colours("red.png", (40, RED))
    colours("wide.png", (40, RED), size=(120, 40))
    Path("list.csv").write_text(
        "picture,people,ground_truth,baseline\nred.png,grey.png,,\nwide.png,red.png,grey.png,red.png\n"
    )
    tools = Tools((PackRecogniser("colours", ByColour()),), LandmarkReader())
    made = evaluate(read_cases(Path("list.csv")), tools, Store(Path("cache")), Workers(quiet=True))
    unknown, wide = made.pictures
    assert unknown.recognisers["colours"].values == {"count": 1} and not unknown.recognisers["colours"].people
    assert unknown.recognisers["colours"].notes == ("colours finds no such face of grey in grey.png.",)
    assert "no face of red in the ground truth" in wide.recognisers["colours"].notes[0]
    assert wide.recognisers["colours"].values["sim_gt"] is None and "120x40 px and its baseline 100x40" in wide.notes[0]
    twice = read_cases(Path("list.csv"))[:1] * 2
    with pytest.raises(DynamicIDError, match="red.png and .*red.png have one name, '.*/?red'"):
        evaluate(twice, tools, Store(Path("cache")), Workers(quiet=True))


def test_pictures_of_one_name_are_told_apart_by_their_folders(folder):
    cases = [Case(Path(path), (Reference((Path("anna.png"),)),)) for path in ("a/1.png", "b/1.png", "b/2.png")]
    assert [case.name for case in with_names(cases)] == ["a/1", "b/1", "2"]
    with pytest.raises(DynamicIDError, match="There are no pictures"):
        with_names([])


def test_face_files_are_read_by_their_own_recogniser_alone(folder):
    colours("red.png", (40, RED))
    identity = torch.zeros(512)
    identity[0] = 1
    tokens = torch.ones(1, 4, 768)
    save_face("anna.safetensors", Face(tokens, tokens, "encoder", identity=identity, recogniser="colours"))
    Path("list.csv").write_text("picture,people\nred.png,anna.safetensors\n")
    wide = ByColour()
    wide.detect = lambda image: [face_at(40, np.eye(512)[0])]  # type: ignore[method-assign]
    tools = Tools((PackRecogniser("colours", wide), PackRecogniser("others", wide)), LandmarkReader())
    (made,) = evaluate(read_cases(Path("list.csv")), tools, Store(Path("cache")), Workers(quiet=True)).pictures
    assert made.recognisers["colours"].values["matched"] == 1
    assert made.recognisers["others"].notes == ("anna is a face file, which others cannot read; give photos.",)


def test_words_of_expressions_and_poses():
    asked = [
        "a very surprised expression, front view",
        "the expression is slightly afraid",
        "HAPPY",
        "happy or sad",
        "tall",
    ]
    assert [expression_word(text) for text in asked] == ["surprise", "fear", "happy", None, None]
    assert (
        pose_word(asked[0]) == "front view"
        and pose_word("looks fully turned to the left") == "fully turned to the left"
    )
    assert pose_word("turned") is None
    poses = {0: "front view", 30: "slightly turned to the right", -80: "fully turned to the left"}
    assert {yaw: shown_pose(face_at(0, np.ones(3), yaw)) for yaw in poses} == poses
    assert LandmarkReader().read(np.zeros((40, 40, 3), np.uint8), face_at(0, np.ones(3))) is None  # no face at all


def test_a_classifier_is_read(folder):
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_tensor_value_info
    weights = np.zeros((3, 8), np.float32)
    weights[0, 0], weights[1, 4] = 1, 1  # red: anger, green: happiness
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        onnx.helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    constants = [onnx.numpy_helper.from_array(np.array([2, 3]), "axes"), onnx.numpy_helper.from_array(weights, "w")]
    graph = onnx.helper.make_graph(nodes, "g", [make("x", 1, [None, 3, 16, 16])], [make("y", 1, [None, 8])], constants)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), "e.onnx")
    reader = load_reader(Path("e.onnx"))
    image = np.asarray(Image.open(colours("both.png", (10, RED), (70, GREEN))))
    assert [reader.read(image, face) for face in ByColour().detect(image)] == ["anger", "happy"]
    with pytest.raises(DynamicIDError, match="no classifier of expressions nothing.onnx"):
        load_reader(Path("nothing.onnx"))


def test_clip_t_is_the_cosine_of_both_towers(folder):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=8)
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained("clip")
    processor = CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), standins.make_tokenizer()
    )
    processor.save_pretrained("clip")
    score = ClipScore("clip", Store(Path("cache")))
    texts = ("a cafe", "x" * 500)  # longer than CLIP's context
    inputs = processor(
        text=list(texts), images=Image.open("anna.png"), return_tensors="pt", padding=True, truncation=True
    )
    with torch.inference_mode():
        out = model(**inputs)
    for row, words in enumerate(texts):
        wanted = (
            out.image_embeds[0] @ out.text_embeds[row] / out.image_embeds[0].norm() / out.text_embeds[row].norm()
        ).item()
        assert score.score(Path("anna.png"), words) == pytest.approx(wanted, abs=1e-5)
    score._model = None  # what was measured is kept
    assert -1 <= score.score(Path("anna.png"), "a cafe") <= 1
    with pytest.raises(DynamicIDError, match="nothing is downloaded"):
        ClipScore("nobody/nothing", Store(Path("cache")))


def test_store_gives_back_what_it_got(folder):
    store, faces = Store(Path("cache")), [face_at(1, np.eye(3)[0]), DetectedFace((0, 0, 1, 1), 0.5, np.zeros((5, 2)))]
    store.put("a", "key", pack_faces(faces))
    first, second = unpack_faces(store.get("a", "key"))
    assert first.box == faces[0].box and (first.identity == faces[0].identity).all() and first.pose == (0, 0, 0)
    assert second.identity is None and second.landmarks is None and second.pose is None
    assert store.get("b", "key") is None and unpack_faces(pack_faces([])) == []
    (file,) = Path("cache").rglob("*.npz")
    file.write_bytes(file.read_bytes()[:50])
    assert store.get("a", "key") is None  # damaged: looked at again


# --- Runs compared ------------------------------------------------------------------------------------------------


def test_runs_are_compared(folder, capsys):
    tools = Tools((PackRecogniser("colours", ByColour()),), LandmarkReader())
    for name, squares in (("good", [(10, RED)]), ("bad", [(10, GREEN)])):
        Path(name).mkdir()
        colours("red.png", (40, RED))
        for number in range(3):
            colours(f"{name}/p{number}.png", *squares)
        rows = [{"picture": f"{name}/p{number}.png", "people": ["red.png"]} for number in range(3)]
        Path("list.jsonl").write_text("\n".join(map(json.dumps, rows)))
        evaluate(read_cases(Path("list.jsonl")), tools, Store(Path("cache")), Workers(quiet=True), name).write(
            Path(name)
        )
    code, out, err = run(capsys, "--compare", "good", "bad")
    assert code == 0, err
    assert "| Matched similarity | colours    | 1.00 [1.00, 1.00] | 0.00 [0.00, 0.00] | -1.00 [-1.00, -1.00] |" in out
    report = Path("comparison/report.html").read_text(encoding="utf-8")
    assert MARK in report and run(capsys, "--compare", "good", "bad")[0] == 0, "its own results are replaced"
    assert report.count('<div class="run">good</div>') == report.count('<div class="run">bad</div>') == 3
    assert "at least two" in failure(capsys, "--compare", "good")
    assert "evaluate these pictures first" in failure(capsys, "--compare", "good", "worse")


def test_one_job_at_a_time(folder, capsys):
    assert "one of them" in failure(capsys)
    assert "one of them" in failure(capsys, "anna.png", "--compare", "a", "b")


def test_without_a_pack_dlib_judges_alone_and_says_so(folder, capsys):
    pytest.importorskip("dlib")
    remembering("a.png")
    code, out, err = run(capsys, "a.png", "-o", "out")
    assert code == 0 and "Judged by dlib alone: The face model pack 'buffalo_l' was not found. Name" in err
    assert "| Count accuracy | dlib " in out
    assert "was not found" in failure(capsys, "a.png", "--detector", "other_pack")
    assert "was not found" in failure(capsys, "a.png", "--recognisers", "dlib", "antelopev2")
