"""How a set was made: ``dataset.json`` in its folder, which `fill` and `report` go by, and a second build compares."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..detection import find_pack, load_detector, recogniser_in, split_pack
from ..faces import FaceDetector, recogniser_of
from ..plain import build, one_line, parse_json
from ..types import DynamicIDError
from ..writing import write
from . import analysis
from .analysis import Analyser
from .checks import CheckOptions
from .expressions import ExpressionClassifier
from .functions import load_function
from .labels import CELLS

FILE = "dataset.json"
VERSION = 1
OWN = f"{__package__.partition('.')[0]}."  # how the names of this package's own modules begin
CAPTION = "a photo of a person, {prompt}"


@dataclass(frozen=True)
class DetectorChoice:
    """What finds the faces; called, it gives the detector. It travels to other processes."""

    pack: str = "buffalo_l"  # an InsightFace pack's name or folder
    roots: tuple[str, ...] = ()  # folders in which packs are looked for
    function: str = ""  # instead of a pack: module:function, which gives a faces.FaceDetector

    def __call__(self) -> FaceDetector:
        if not self.function:
            return load_detector(self.pack, self.roots)
        detector: FaceDetector = load_function(self.function, "The detector")()
        return detector

    @property
    def recogniser(self) -> str:
        """What the manifest calls the maker of identities. Raises DynamicIDError for a detector that is not there."""
        if self.function:
            return recogniser_of(self())
        pack, channels = split_pack(self.pack)
        return recogniser_in(find_pack(pack, self.roots), channels)

    @property
    def models(self) -> list[list[str]]:
        """Names and sizes of the model files; DynamicIDError if the pack is not there."""
        if self.function:
            load_function(self.function, "The detector")
            return [[self.function]]
        files = find_pack(split_pack(self.pack)[0], self.roots)
        return [[task, path.name, str(path.stat().st_size)] for task, path in sorted(files.items())]


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is in a set, besides the photos."""

    sources: tuple[str, ...]
    detector: DetectorChoice = DetectorChoice()
    classifier: str = ""  # an ONNX file; "": expressions are read from landmarks
    classes: tuple[str, ...] = ()  # the classifier's, in its order
    checks: CheckOptions = CheckOptions()
    caption: str = CAPTION  # {prompt}, {expression}, {pose} and {person} are replaced
    captioner: str = ""  # module:function, photo and labels -> caption
    validation: float = 0.05  # share of the people
    copy: bool = False  # photos are copied, even where they could be linked

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise DynamicIDError(
                f"The share of people for validation is {self.validation}; it must be from 0 to below 1."
            )
        self.caption_for("", CELLS[0])

    def caption_for(self, person: str, cell: Any) -> str:
        try:
            return self.caption.format(prompt=cell.prompt, expression=cell.expression, pose=cell.pose, person=person)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise DynamicIDError(
                f"The caption {self.caption!r} cannot be filled in ({error}); it may name {{prompt}}, {{expression}}, {{pose}} "
                "and {person} in braces."
            ) from error

    def check_functions(self, allowed: Sequence[str]) -> None:
        """Raise DynamicIDError for functions that these settings name, if they are neither of this package nor ``allowed``.

        Settings that somebody else wrote would otherwise run whatever module they name.
        """
        named = dict.fromkeys(name for name in (self.detector.function, self.captioner) if name)
        if refused := [name for name in named if not name.startswith(OWN) and name not in allowed]:
            raise DynamicIDError(
                f"{FILE} names {' and '.join(refused)}, which would be run. If that is yours, allow it: "
                f"{' '.join(f'--allow {name}' for name in refused)}"
            )

    def analyser(self) -> Analyser:
        return Analyser(self.detector, self._classifier())

    def _classifier(self) -> ExpressionClassifier | None:
        return ExpressionClassifier(self.classifier, self.classes) if self.classifier else None

    def analysis_key(self) -> str:
        """Changes with whatever changes what is seen in a photo. Raises DynamicIDError for models that are not there."""
        made = [analysis.VERSION, self.detector.recogniser, self.detector.models, self.classes]
        if classifier := self._classifier():
            classifier.load()
            made.append(hashlib.sha256(Path(self.classifier).read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()

    def write(self, folder: Path, found: dict[str, Any]) -> None:
        """``found``: what a build wants to tell the report besides the manifest."""
        record = {"version": VERSION, "settings": dataclasses.asdict(self), "found": found}
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        path = folder / FILE
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write(path, text)


def read_settings(folder: str | os.PathLike[str]) -> tuple[Settings, dict[str, Any]]:
    """The settings of the set in ``folder`` and what its build found; DynamicIDError if `dataset build` made none there."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise DynamicIDError(f"There is no training set in {folder} that `dataset build` made ({FILE} is missing).")
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        if (
            not isinstance(record, dict)
            or record.get("version") != VERSION
            or not isinstance(record.get("found"), dict)
        ):
            raise DynamicIDError("another version of DynamicID wrote it, or something else")
        made: Settings = build(Settings, record.get("settings"), "settings")
        return made, record["found"]
    except (OSError, ValueError) as error:
        raise DynamicIDError(
            f"{path} cannot be read ({one_line(str(error).rstrip('.'))}); build the set again."
        ) from error
