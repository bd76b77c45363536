"""The command ``python -m deblur_lab.data.synthesize``: synthetic pairs in the layout of a real dataset."""

import difflib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblur_lab import __version__
from deblur_lab.data.made_up import RECORD_NAME
from deblur_lab.data.progress import progress_bar
from deblur_lab.data.scenes import SceneKind
from deblur_lab.data.synthetic import SyntheticScenes
from deblur_lab.data.workers import as_done, cores
from deblur_lab.data.writers import LAYOUTS, Frame, Place, WrittenLayout, WrittenSplit, frames
from deblur_lab.endings import on_sigterm, reporting
from deblur_lab.errors import ConfigurationError, MachineError

HELP = """\
Write pairs of blurry and sharp pictures, made up from photographs that scikit-image ships, in the layout of a
real dataset: to try the suite on, not to compare with published scores.

  python -m deblur_lab.data.synthesize output=DIR layout=LAYOUT [setting=value ...]

  output=DIR        the folder to write to; made if missing, refused if anything is in it
  layout=LAYOUT     {layouts}
  variant=VARIANT   of the layout, see below; the first if not given
  train_scenes=N    pairs to train on ({train_scenes})
  test_scenes=N     pairs to test on, cut from other photographs ({test_scenes})
  size=WxH          width and height in pixels ({width}x{height}); realblur's scenes are up to 12 px smaller
  seed=N            same seed, same pictures ({seed})
  num_workers=N     processes that write beside this one, 0 for none (one a core, four at most)

In reloblur and folder objects move and there are masks; in the others the camera shakes. Blur is averaged in
light, but for gopro's blur and hide: these average stored values, as the real ones do; gopro's blur_gamma is
the same blur in light. The pictures of realblur_r are dark.

What is written below DIR, and what is then data.root:

{descriptions}"""

_KEYS = ("output", "layout", "variant", "train_scenes", "test_scenes", "size", "seed", "num_workers")
_SMALLEST_SIZE_PX = 32
# Of the recipe of M2AENet: its patches, and what their size must be a multiple of.
_PATCH_PX = 256
_PATCH_UNIT_PX = 16
_UNFINISHED = ".unfinished"
_MOST_WORKERS = 4
_KILLED = "a worker process was killed, perhaps for want of memory: try num_workers=0 or a smaller size"

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Settings:
    """What was asked for: see `HELP`. Workers are None where nothing was said."""

    output: Path
    layout: str
    variant: str | None = None
    train_scenes: int = 48
    test_scenes: int = 16
    size_px: tuple[int, int] = (480, 320)
    seed: int = 0
    num_workers: int | None = None


@dataclass(frozen=True)
class Job:
    """One pair to write: all that a worker needs to know."""

    kind: SceneKind
    kind_in_light: SceneKind | None
    split: WrittenSplit
    number: int
    size_px: tuple[int, int]
    seed: int
    place: Place
    folder: Path

    def write(self) -> None:
        """Make the scene and write its pictures.

        Raises:
            MachineError: a picture cannot be written.
        """
        scene = self._scenes(self.kind).load(self.number)
        pictures = {self.place.blurry: scene.blurry, self.place.sharp: scene.sharp}
        if self.place.mask is not None:
            assert scene.mask is not None
            pictures[self.place.mask] = scene.mask * 255
        if self.place.blurry_in_light is not None:
            assert self.kind_in_light is not None
            pictures[self.place.blurry_in_light] = self._scenes(self.kind_in_light).load(self.number).blurry
        for place, picture in pictures.items():
            write_png(self.folder / place, picture)

    def _scenes(self, kind: SceneKind) -> SyntheticScenes:
        width_px, height_px = self.size_px
        return SyntheticScenes(
            kind, self.split, self.number + 1, width_px=width_px, height_px=height_px, seed=self.seed
        )


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture into a folder of what is not finished, so that it need not be whole at once.

    Unlike `images.write_png` it does not load PyTorch: for each worker that is seconds and much memory.

    Raises:
        MachineError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, format="PNG")
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror or error}") from error


def help_text() -> str:
    """What ``--help`` prints."""
    descriptions = [
        f"  {name}{'' if len(variants) == 1 else f' variant={variant}'}\n"
        f"    {layout.description}\n    data.root={Path('DIR') / layout.root}\n"
        for name, variants in LAYOUTS.items()
        for variant, layout in variants.items()
    ]
    return HELP.format(
        layouts=", ".join(LAYOUTS),
        train_scenes=Settings.train_scenes,
        test_scenes=Settings.test_scenes,
        width=Settings.size_px[0],
        height=Settings.size_px[1],
        seed=Settings.seed,
        descriptions="".join(descriptions),
    )


def parse(arguments: Sequence[str]) -> Settings:
    """The settings of a command line of key=value; a value is taken as typed, spaces and `=` included.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value is not of its kind; in a line for each.
    """
    typed: dict[str, str] = {}
    found = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in _KEYS:
            near = difflib.get_close_matches(key.lstrip("-"), _KEYS, 1)
            hint = f"did you mean {near[0]}=...?" if near else f"there are {', '.join(_KEYS)}"
            found.append(f"there is no setting {key!r}: {hint}")
        elif not equals or not value:
            found.append(f"{key} has no value: give it as {key}=...")
        elif typed.setdefault(key, value) != value:
            found.append(f"{key} is given twice: as {typed[key]!r} and as {value!r}")
    found += [
        f"{key} is not set: give it as {key}=... (--help lists all settings)"
        for key in ("output", "layout")
        if key not in typed
        and not any(re.search(rf"^{key} has no value|mean {key}=", line) for line in found)
    ]
    settings = Settings(output=Path(typed.get("output", "")).expanduser(), layout=typed.get("layout", ""))
    for key, value in typed.items():
        try:
            settings = replace(settings, **_read(key, value))
        except ConfigurationError as error:
            found.append(str(error))
    if "layout" in typed:
        try:
            layout_of(settings)
        except ConfigurationError as error:
            found.append(str(error))
    if found:
        raise ConfigurationError("\n       ".join(found))
    return settings


def _read(key: str, value: str) -> dict[str, Any]:
    """A setting as an argument of `Settings`; nothing for those that are taken as typed."""
    if key == "size":
        return {"size_px": _size_px(value)}
    if key == "variant":
        return {key: value}
    if key in ("output", "layout"):
        return {}
    if not (value.isascii() and value.isdecimal()):
        raise ConfigurationError(f"{key}={value} must be a whole number, 0 or more")
    return {key: int(value)}


def _size_px(value: str) -> tuple[int, int]:
    sides = value.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise ConfigurationError(f"size={value} must be WIDTHxHEIGHT in pixels, as in size=480x320")
    width_px, height_px = (int(side) for side in sides)
    if min(width_px, height_px) < _SMALLEST_SIZE_PX:
        raise ConfigurationError(
            f"size={value} is too small: {_SMALLEST_SIZE_PX}x{_SMALLEST_SIZE_PX} at least"
        )
    return width_px, height_px


def layout_of(settings: Settings) -> WrittenLayout:
    """The layout asked for.

    Raises:
        ConfigurationError: there is no such layout or variant.
    """
    variants = _one_of("layout", settings.layout, LAYOUTS)
    if settings.variant is None:
        return next(iter(variants.values()))
    return _one_of("variant", settings.variant, variants)


def _one_of(key: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        hint = f"did you mean {key}={near[0]}? " if near else ""
        raise ConfigurationError(f"{key}={value} does not exist: {hint}there are {', '.join(choices)}")
    return choices[value]


def synthesize(settings: Settings, progress: Callable[[int, int], None] | None = None) -> int:
    """Write a dataset. Nothing of it is in the output folder until all of it is written.

    Args:
        settings: What to write, and where.
        progress: Is told how many pairs are written, of how many.

    Returns:
        How many pairs were written.

    Raises:
        ConfigurationError: a setting is wrong, or there is something in the output folder.
        MachineError: the output folder cannot be written to, the disk is full, or a worker has died.
    """
    layout = layout_of(settings)
    all_frames = list(frames(settings.train_scenes, settings.test_scenes))
    if not all_frames:
        raise ConfigurationError("train_scenes=0 and test_scenes=0 leave nothing to write")
    pairs = [(frame, layout.place(frame)) for frame in all_frames]
    with _unfinished(settings.output) as folder:
        jobs = [
            Job(
                layout.kind,
                layout.kind_in_light,
                frame.split,
                frame.number,
                layout.size_px(frame, *settings.size_px),
                settings.seed,
                place,
                folder,
            )
            for frame, place in pairs
        ]
        workers = min(cores(), _MOST_WORKERS) if settings.num_workers is None else settings.num_workers
        for done, _ in enumerate(as_done([job.write for job in jobs], workers, killed=_KILLED), start=1):
            if progress is not None:
                progress(done, len(jobs))
        texts = dict(layout.lists(pairs))
        texts[f"{layout.root or '.'}/{RECORD_NAME}"] = record_of(settings, layout, all_frames)
        try:
            for path, text in texts.items():
                (folder / path).write_text(text, encoding="utf-8")
            for part in sorted(folder.iterdir()):
                part.rename(settings.output / part.name)
        except OSError as error:
            raise MachineError(f"output={settings.output} cannot be written to: {error.strerror}") from error
    return len(jobs)


def record_of(settings: Settings, layout: WrittenLayout, written: Sequence[Frame]) -> str:
    """What `RECORD_NAME` in a dataset's folder says of how it came to be, as JSON.

    Its keys: `made_by` and `version`; `data`, the choice that reads it, `layout` and `variant`, `size` and
    `seed`, as asked for; `holds`, the names of what lies beside the record; `pairs`, how many each split has;
    `sequences`, how many each of its sequences has, none where the layout has no sequences.
    """
    prefix = f"{layout.root}/" if layout.root else ""
    places = [place for frame in written for place in layout.place(frame).files]
    places += layout.lists([(frame, layout.place(frame)) for frame in written])
    sequences: dict[str, dict[str, int]] = {}
    for frame in written:
        of_split = sequences.setdefault(frame.split, {})
        name = layout.sequence(frame)
        if name:
            of_split[name] = of_split.get(name, 0) + 1
    variants = LAYOUTS[settings.layout]
    record = {
        "made_by": "deblur_lab.data.synthesize",
        "version": __version__,
        "data": layout.data,
        "layout": settings.layout,
        "variant": next(name for name, variant in variants.items() if variant is layout),
        "size": list(settings.size_px),
        "seed": settings.seed,
        "holds": sorted({place.removeprefix(prefix).split("/")[0] for place in places}),
        "pairs": {split: sum(frame.split == split for frame in written) for split in sequences},
        "sequences": sequences,
    }
    return f"{json.dumps(record, indent=2)}\n"


@contextmanager
def _unfinished(output: Path) -> Iterator[Path]:
    """A folder inside the output folder for what is not finished; removed in the end, whatever happens.

    One that a killed process has left is removed first, but on Windows, where it is refused as anything else.
    """
    folder = output / f"{_UNFINISHED}-{socket.gethostname()}-{os.getpid()}"
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        for left in output.iterdir():
            if not _is_abandoned(left):
                raise ConfigurationError(
                    f"output={output} is not empty ({left.name!r} is in it): give an empty or a new folder"
                )
            shutil.rmtree(left)
        folder.mkdir()
    except OSError as error:
        raise MachineError(f"output={output} cannot be written to: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # which it is unless nothing was written
                output.rmdir()


def _is_abandoned(path: Path) -> bool:
    """Whether this is a folder for what is not finished whose process surely has ended, on this machine."""
    if os.name != "posix":
        return False  # there the signal 0 is Ctrl-C
    mark, _, pid = path.name.rpartition("-")
    if mark != f"{_UNFINISHED}-{socket.gethostname()}" or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the arguments given, or those of the process, and return its exit code."""
    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        with reporting("; nothing is left behind"):
            return _run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: Sequence[str]) -> int:
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        _say(help_text().rstrip("\n"))
        return 0 if arguments else ConfigurationError.exit_code
    if "--version" in arguments:
        _say(f"deblur_lab {__version__}")
        return 0
    settings = parse(arguments)
    seconds = _run_with_bar(settings)
    layout = layout_of(settings)
    count = settings.train_scenes + settings.test_scenes
    _say(f"{count} pairs written in {seconds:.1f} s to {settings.output}")
    if settings.test_scenes == 0:
        _say("there are no pairs to test on, which a training needs as well: test_scenes=...")
    else:
        _say(f"next: {_next_command(settings, layout)}")
    return 0


def _run_with_bar(settings: Settings) -> float:
    began = time.perf_counter()
    with progress_bar("writing pairs", settings.train_scenes + settings.test_scenes) as advance:
        synthesize(settings, lambda *_: advance())
    return time.perf_counter() - began


def _next_command(settings: Settings, layout: WrittenLayout) -> str:
    root = shlex.quote(f"data.root={settings.output.resolve() / layout.root}")
    if settings.train_scenes == 0:
        return f"python -m deblur_lab.evaluate checkpoint=PATH data={layout.data} {root}"
    # The largest patch that the smallest scene has room for; M2AENet takes multiples of its coarsest pixel.
    sides = (layout.size_px(frame, *settings.size_px) for frame in frames(settings.train_scenes, 0))
    patch_px = min(min(size) for size in sides) // _PATCH_UNIT_PX * _PATCH_UNIT_PX
    patch = f" data.patch_size={patch_px}" if patch_px < _PATCH_PX else ""
    return f"python -m deblur_lab.train model=m2aenet data={layout.data} {root}{patch}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
