"""What finished runs and evaluations left in their folders, read back."""

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from deblur_lab.config import plain_leaves
from deblur_lab.data.made_up import MADE_UP
from deblur_lab.errors import DataError
from deblur_lab.exhibits import StoredExhibit, read_exhibits
from deblur_lab.stages import STAGES

_STAGES = "stages.json"
# What older versions call such data, without a mark.
_SYNTHETIC = "synthetic"
_BLURRY, _ALIGNED = "blurry_", "aligned"
_SOURCES = re.compile(r"data\.sources\[(\d+)\]\.(_target_|name)")


@dataclass(frozen=True)
class ImageScores:
    """The scores of one test image; a score that it does not have is left out.

    Attributes:
        dataset: that it is of, as in ``scores.json``, without the mark of made-up data.
        name: of the image.
        restored: scores of the restored image, by name (``psnr_db``, ``ssim``, ...).
        blurry: those of the blurry input, by the same names.
    """

    dataset: str
    name: str
    restored: Mapping[str, float]
    blurry: Mapping[str, float]


@dataclass(frozen=True)
class TrainedPart:
    """A stage of a training, or the whole of one without stages.

    Attributes:
        name: of the stage; empty for the whole.
        first_step: how many steps the stages before it took.
        steps: how many it took; 0 for the whole.
        curves: (step, value) pairs by logged name, in its own steps.
    """

    name: str
    first_step: int
    steps: int
    curves: Mapping[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        folder: of the run.
        scores: the contents of its ``scores.json``.
        curves: (step, value) pairs by logged name.
        pictures: the files in its ``pictures/``.
        configuration: the text of its ``config.yaml``; empty for an evaluation.
        settings: the values in it by dotted key, references as they stand; none for an evaluation.
        stages: what each stage took and reached, where it was trained in stages.
        training: of an evaluation that stands for the training whose net it scored, the folder of that.
    """

    folder: Path
    scores: Mapping[str, Any]
    curves: Mapping[str, list[tuple[int, float]]]
    pictures: Sequence[Path]
    configuration: str
    settings: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]] = ()
    training: Path | None = None

    @property
    def name(self) -> str:
        """What it is called: its folder; a job of a sweep with the sweep's."""
        place = self.folder.absolute()
        return f"{place.parent.name}/{place.name}" if place.name.isdigit() else place.name

    @property
    def experiments(self) -> tuple[str, ...]:
        """The names of the experiments that it was started with."""
        names = self.scores.get("experiment") or []
        return tuple(names) if isinstance(names, list) else (str(names),)

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The names of the training sets, made-up ones marked; none if nothing is known of them.

        They stand in ``scores.json``, or, of trainings by older versions, follow from the configuration.
        """
        named = self.scores.get("trained_on")
        if isinstance(named, list) and named:
            return tuple(_marked(str(name)) for name in named)
        sources: dict[str, dict[str, str]] = {}
        for key, value in self.settings.items():
            match = _SOURCES.fullmatch(key)
            if match is not None and value is not None:
                sources.setdefault(match[1], {})[match[2]] = str(value)
        made_up = {result["dataset"] for result in self.scores["results"] if is_made_up(result)}
        return tuple(_source_name(source, made_up) for source in sources.values())

    @cached_property
    def images(self) -> Sequence[ImageScores]:
        """The scores of each test image, in the order of ``scores.csv``; none where there is no such file.

        Raises:
            DataError: the file is damaged.
        """
        return _images(self.folder / "scores.csv")

    @cached_property
    def exhibits(self) -> Sequence[StoredExhibit]:
        """The test images whose pictures the run kept one by one, in order of their names.

        Raises:
            DataError: one is damaged.
        """
        return read_exhibits(self.folder / "pictures" / "exhibits")

    @cached_property
    def parts(self) -> Sequence[TrainedPart]:
        """What was trained, stage by stage; one part where there were none.

        Raises:
            DataError: the curves of a stage are damaged.
        """
        parts: list[TrainedPart] = []
        for stage in self.stages:
            name, steps = str(stage["stage"]), int(stage.get("steps") or 0)
            before = sum(part.steps for part in parts)
            folders = sorted((self.folder / STAGES).glob(f"*-{name}"))
            parts.append(
                TrainedPart(name, before, steps, _curves(folders[-1] / "metrics.csv") if folders else {})
            )
        return parts or [TrainedPart("", 0, 0, self.curves)]

    @property
    def evaluated(self) -> str:
        """What an evaluation scored: a checkpoint, or a folder of restored pictures; empty for a training."""
        if self.settings:
            return ""
        scored = self.scores.get("checkpoint") or f"pictures in {self.scores.get('restored_by')}"
        return f"{self.name}: {scored}"


def is_made_up(result: Mapping[str, Any]) -> bool:
    """Whether a result of ``scores.json`` is of made-up data, which no published number is of."""
    return bool(result.get("made_up", result["dataset"] == _SYNTHETIC))


def dataset_of(result: Mapping[str, Any]) -> str:
    """The name of the dataset of a result of ``scores.json``; of made-up data with the mark."""
    return f"{result['dataset']}{MADE_UP if is_made_up(result) else ''}"


def _marked(name: str) -> str:
    """The name of a training set, those that older versions leave unmarked with the mark."""
    return f"{name}{MADE_UP}" if name == _SYNTHETIC else name


def _source_name(source: Mapping[str, str], made_up: Set[str]) -> str:
    """What a dataset of a configuration is called: the name that it is given, or that of its class.

    Args:
        source: its class and its name, as far as they stand there.
        made_up: the datasets that the same run was scored on and that were made here.
    """
    kind = source.get("_target_", "").rpartition(".")[2].removesuffix("Source").lower()
    name = source.get("name") or kind
    return f"{name}{MADE_UP}" if kind == _SYNTHETIC or name in made_up else name


def find_runs(root: Path) -> list[Run]:
    """The finished runs at or below a folder, in order of their paths, numbers by their value.

    A training in stages is one run, whose scores are those of its last stage, once that is done.

    Raises:
        DataError: there are none, or what one left cannot be read.
    """
    if not root.exists():
        raise DataError(f"runs={root} does not exist")
    wholes = {path.parent for path in root.rglob(_STAGES)}
    scored = {path.parent for path in root.rglob("scores.json")}
    stages = {path for path in scored if path.parent.name == STAGES and path.parent.parent in wholes}
    found = sorted((scored - stages) | wholes, key=_by_numbers)
    if not found:
        raise DataError(f"runs={root} holds no finished run (no scores.json in it or below)")
    return [_read(folder) for folder in found]


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """Sorts ``sweep/2`` before ``sweep/10``."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", str(path))]


def _read(folder: Path) -> Run:
    stages = _list_in(folder / _STAGES, "stages")[1]
    path = folder / "scores.json"
    scores, results = _list_in(path, "results")
    if stages and not results:  # not done yet, or it restores no pictures
        scores = {"results": []}
    text, settings = _configuration(folder / "config.yaml")
    # NAME.png, which shows what was restored, before NAME.features.png and others.
    pictures = sorted(
        (folder / "pictures").glob("*.png"), key=lambda path: (path.stem.split(".")[0], len(path.stem), path)
    )
    return Run(folder, scores, _curves(folder / "metrics.csv"), pictures, text, settings, stages)


def _list_in(path: Path, key: str) -> tuple[dict[str, Any], list[Any]]:
    """What a file of JSON holds, and the list under a key of it; nothing if there is no such file."""
    if not path.is_file():
        return {}, []
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(contents, dict) or not isinstance(contents.get(key), list):
        raise DataError(f"{path} was not written by deblur_lab: it holds no {key}")
    return contents, contents[key]


def _configuration(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        settings = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:  # YAML's and OmegaConf's are of no common kind
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}: mend or remove it") from error
    if not isinstance(settings, dict):
        raise DataError(f"{path} is damaged: it holds no settings: mend or remove it")
    leaves = [plain_leaves(node, str(key)) for key, node in settings.items()]
    return text, {key: value for part in leaves for key, value in part.items()}


def _images(path: Path) -> tuple[ImageScores, ...]:
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            # What has a twin of the blurry input is a score; not so what says whether pictures were aligned.
            names = [name for name in columns if f"{_BLURRY}{name}" in columns and name != _ALIGNED]
            return tuple(
                ImageScores(row["dataset"], row["name"], _known(row, names), _known(row, names, _BLURRY))
                for row in reader
            )
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise DataError(f"{path} is damaged: {error}: mend or remove it") from error


def _known(row: Mapping[str, str], names: Sequence[str], prefix: str = "") -> dict[str, float]:
    if None in row or None in row.values():
        raise ValueError(f"the row of {row['name']} has another length than the heading")
    found = {name: float(row[prefix + name]) for name in names if row[prefix + name]}
    for name, value in found.items():
        if math.isnan(value):  # of what it does not have nothing stands there; infinite is a PSNR of equals
            raise ValueError(f"{prefix}{name} of {row['name']} is not a number")
    return found


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            try:
                for row in csv.DictReader(file):
                    for name, value in row.items():
                        if value and name != "step":
                            curves.setdefault(name, []).append((int(row["step"]), float(value)))
            except (ValueError, TypeError, KeyError, csv.Error) as error:
                raise DataError(f"{path} is damaged: {error}: mend or remove it") from error
    return curves
