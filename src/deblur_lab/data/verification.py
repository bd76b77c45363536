"""A dataset's folder, looked through for all that would spoil a training or a score."""

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from deblur_lab import __version__
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, plain
from deblur_lab.console import say
from deblur_lab.data.layouts import DataFolder, Pair
from deblur_lab.data.made_up import read_record
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.progress import progress_bar
from deblur_lab.data.published_sets import PUBLISHED, ExpectedSet
from deblur_lab.data.samples import Source, Split
from deblur_lab.data.sources import PictureSource
from deblur_lab.data.verifying import contents, dropped, listings, pictures
from deblur_lab.data.verifying.findings import Finding
from deblur_lab.data.verifying.inspection import Inspection, PairFacts
from deblur_lab.data.verifying.listings import Listed
from deblur_lab.data.verifying.report import Verified, print_verified, record_of
from deblur_lab.data.workers import cores, in_order
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import quoted
from deblur_lab.writing import write_json

RESULT_NAME = "verify.json"
FORMAT = 1
"""Of `verify.json`: counts up where a reader of the former one would misread it."""

Expected = Literal["published", "test", "any"]

# Fewer are looked through sooner than processes are started.
_FEWEST_FOR_PROCESSES = 8
_KILLED = "a process that reads pictures was killed, perhaps for want of memory: try workers=1"
_NOTHING_KNOWN = ExpectedSet({}, lossless=False)
# A person's own pairs in GoPro's layout: only how the two kinds of blur are averaged is known.
FROM_VIDEO = "from_video.json"
_FROM_VIDEO = ExpectedSet({}, blurred="stored")


def verify(config: DictConfig) -> None:
    """Look through all datasets of a configuration; print what is found, and write ``verify.json``.

    Args:
        config: ``conf/data.verify.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: A dataset is not made of files.
        DataError: A folder or its layout is missing; or there are faults, after all of them are told.
        MachineError: The output folder cannot be written to, or a process was killed.
    """
    settings: dict[str, Any] = plain(config)
    choice = HydraConfig.get().runtime.choices["data"]
    nodes = settings["data"]["sources"]
    trusted = tuple(settings["trusted_packages"])
    sources: list[Source] = [
        build(node, trusted, key=f"data.sources[{place}]") for place, node in enumerate(nodes)
    ]
    looked_at = [(source, node) for source, node in zip(sources, nodes, strict=True) if _has_files(source)]
    if not looked_at:
        raise ConfigurationError(
            f"data.sources: {sources[0].name} is not read from files: there is nothing to look through"
        )
    began = time.perf_counter()
    with _output_folder(settings["output"], f"{time.strftime('%Y%m%d')}-verify-{choice}") as folder:
        sets = [
            verify_source(
                source,
                expected=settings["expected"],
                workers=settings["workers"],
                blur=node.get("blur", "blur"),
                shows_progress=True,
            )
            for source, node in looked_at
        ]
        seconds = time.perf_counter() - began
        is_sound = not any(verified.faults for verified in sets)
        path = folder / RESULT_NAME
        write_json(
            path,
            {
                "format": FORMAT,
                "version": __version__,
                "sound": is_sound,
                "expected": settings["expected"],
                "seconds": seconds,
                "sets": [record_of(verified) for verified in sets],
            },
        )
    for verified in sets:
        print_verified(verified)
    files = sum(verified.files for verified in sets)
    say(
        f"{files} files read in {seconds:.1f} s ({files / seconds:.0f} a second); all of it in {quoted(path)}"
    )
    if not is_sound:
        faults = [fault for verified in sets for fault in verified.faults]
        kinds = ", ".join(dict.fromkeys(fault.kind for fault in faults))
        raise DataError(
            f"data={choice}: {len(faults)} fault(s) in {quoted(sets[0].root)} ({kinds}): "
            f"docs/verify.md says what they mean, {quoted(path)} has all of them"
            if len(sets) == 1
            else f"data={choice}: {len(faults)} fault(s) ({kinds}): {quoted(path)} has all of them"
        )


def verify_source(
    source: Source,
    *,
    expected: Expected = "published",
    workers: int | None = None,
    blur: str = "blur",
    shows_progress: bool = False,
) -> Verified:
    """Look through one dataset.

    Args:
        source: The dataset; its `scenes` have `pairs` and `faults`, as `PictureScenes`.
        expected: What to hold it against: the published counts and sizes, those of the test split alone, or
            none, as for a part of a dataset. One that `data.synthesize` wrote is held against its own record.
        workers: How many processes read pictures; None for one a core.
        blur: Which of GoPro's two kinds of blur is meant: blur or blur_gamma.
        shows_progress: Whether a bar is shown on standard error, if that is a terminal.

    Raises:
        ConfigurationError: It is not made of files.
        DataError: The folder or the layout is missing.
        MachineError: A process was killed.
    """
    known = PUBLISHED.get(source.name, _NOTHING_KNOWN)
    listed, scenes, empty = _listed(source)
    root = _root_of(scenes, source)
    record = read_record(root) if any(of_split.made_up for of_split in scenes) else None
    if record is not None:
        known = listings.expected_of_made_up(record, known)
    from_video = record is None and (root / FROM_VIDEO).is_file()
    if from_video:
        known = _FROM_VIDEO
    if blur == "blur_gamma" and known.blurred is not None:
        known = replace(known, blurred="light")
    required = {"published": tuple(known.splits), "test": ("test",), "any": ()}[expected]
    asked = replace(
        known,
        splits={split: numbers for split, numbers in known.splits.items() if split in required},
        size_px=None if expected == "any" else known.size_px,
    )

    inspections = [
        Inspection(of_split.split, pair, _twin_of(pair)) for of_split in listed for pair in of_split.pairs
    ]
    facts = _inspected(inspections, workers or cores(), source.name, shows_progress=shows_progress)

    descriptions = source.descriptions if isinstance(source, PictureSource) else ()
    renamed = dropped.dropped_splits(DataFolder(root, follow_links=True), listed, descriptions)
    # Where the test split alone is asked for, it does not matter what became of the other.
    empty += [
        replace(finding, is_fault=expected != "test" or finding.split == "test")
        for finding in renamed.values()
    ]
    findings = [
        *empty,
        *listings.count_findings(listed, asked, [split for split in required if split not in _splits(empty)]),
        *listings.layout_findings(listed),
    ]
    if not any(finding.kind == "sequence_in_both" for finding in findings):
        findings += listings.sequence_findings(listed, known)
    for of_split in listed:
        findings += listings.name_findings(of_split)
    findings += _extra(root, listed, renamed, is_fault=expected == "published")
    findings += [*pictures.file_findings(facts, asked), *pictures.size_findings(facts, asked)]
    findings += [*pictures.mask_findings(facts, asked), *pictures.pair_findings(facts)]
    is_misnamed = any(finding.kind == "wrong_variant" for finding in findings)
    for of_split, found in zip(listed, scenes, strict=True):
        of_this = [fact for fact in facts if fact.split == of_split.split]
        findings += contents.averaging_findings(of_this, asked, of_split.split, found.layout)
        if not is_misnamed:
            findings += contents.variant_findings(of_this, asked, of_split.split)
    findings += contents.duplicate_findings(facts)
    return Verified(
        name=source.name,
        root=root,
        layouts={of_split.split: found.layout for of_split, found in zip(listed, scenes, strict=True)},
        made_up=record is not None,
        from_video=from_video,
        masks_from=next((found.masks_from for found in scenes if found.masks_from), None),
        expected=asked,
        listed=tuple(listed),
        facts=tuple(facts),
        findings=tuple(findings),
    )


def _inspected(
    inspections: Sequence[Inspection], workers: int, name: str, *, shows_progress: bool
) -> list[PairFacts]:
    if workers == 1 or len(inspections) < _FEWEST_FOR_PROCESSES:
        workers = 0
    facts: list[PairFacts] = []
    title = f"reading pairs of {name}"
    with progress_bar(title, len(inspections), is_shown=shows_progress) as advance:
        for fact in in_order(inspections, workers, killed=_KILLED):
            facts.append(fact)
            advance()
    return facts


def _has_files(source: Source) -> bool:
    """Whether a dataset is read from files; whether they are all right is another question."""
    try:
        return all(isinstance(source.scenes(split), PictureScenes) for split in source.splits())
    except DataError:
        return True


def _listed(source: Source) -> tuple[list[Listed], list[PictureScenes], list[Finding]]:
    """The splits of a dataset, and those that are there but empty as findings.

    Raises:
        ConfigurationError: It is not made of files.
        DataError: The folder or the layout is missing, or all splits are empty.
    """
    listed: list[Listed] = []
    found: list[PictureScenes] = []
    empty: list[Finding] = []
    for split in source.splits():
        try:
            scenes = source.scenes(split)
        except DataError as error:
            empty.append(Finding("split_missing", str(error), "pairs of pictures", split))
            continue
        if not isinstance(scenes, PictureScenes):
            raise ConfigurationError(
                f"data.sources: {source.name} is not read from files: there is nothing to look through"
            )
        listed.append(Listed(split, scenes.pairs, scenes.faults))
        found.append(scenes)
    if not listed:
        raise DataError(empty[0].found if empty else f"{source.name} has no split at all")
    return listed, found, empty


def _root_of(scenes: Sequence[PictureScenes], source: Source) -> Path:
    root = next((found.root for found in scenes if found.root is not None), None)
    if root is None:
        raise ConfigurationError(f"data.sources: {source.name} does not say which folder it is read from")
    return root


def _splits(findings: Sequence[Finding]) -> set[Split | None]:
    return {finding.split for finding in findings}


def _extra(root: Path, listed: Sequence[Listed], told: Collection[Path], *, is_fault: bool) -> list[Finding]:
    """Pictures that belong to no pair; they are warnings where a part of a dataset is looked through."""
    others = [*_other_folders(root, listed), *told]
    found = listings.extra_findings(DataFolder(root, follow_links=True), listed, others)
    return [replace(finding, is_fault=finding.is_fault and is_fault) for finding in found]


def _other_folders(root: Path, listed: Sequence[Listed]) -> list[Path]:
    """The folders of a dataset's own pictures that are not asked for."""
    others = [twin.parent for of_split in listed for pair in of_split.pairs if (twin := _twin_of(pair))]
    tops = [path for path in root.iterdir() if path.is_dir()]
    used = [
        path for of_split in listed for pair in of_split.pairs for path in (pair.blurry, pair.mask) if path
    ]
    # Another release of masks, or RealBlur's other kind.
    beside = [
        top
        for top in tops
        if top.name.lower().startswith(("mask", "realblur"))
        and not any(path.is_relative_to(top) for path in used)
    ]
    # Of a split without a single pair its layout's fault has said enough.
    without = [root / of_split.split for of_split in listed if not of_split.pairs and of_split.faults]
    return [*dict.fromkeys(others), *beside, *without]


def _twin_of(pair: Pair) -> Path | None:
    """The same blurry picture in the other folder of raw GoPro or RealBlur, if it is there.

    GoPro's `blur` has `blur_gamma` beside it; a scene of RealBlur-J may have its like in the folder of R.
    """
    folder, name = pair.blurry.parent, pair.blurry.name
    other = {"blur": "blur_gamma", "blur_gamma": "blur"}.get(folder.name)
    if other is None:
        return None
    twin = folder.with_name(other) / name
    if twin.is_file():
        return twin
    scenes = folder.parent.parent
    for kind, of_other in (("RealBlur-J_", "RealBlur-R_"), ("RealBlur-R_", "RealBlur-J_")):
        if scenes.name.startswith(kind):
            for beside in sorted(scenes.parent.glob(f"{of_other}*")):
                twin = beside / folder.parent.name / folder.name / name
                if twin.is_file():
                    return twin
    return None


@contextlib.contextmanager
def _output_folder(output: str | None, default_name: str) -> Iterator[Path]:
    """The folder to write to; taken away again if nothing was written."""
    runs = Path("runs")
    new = [path for path in ([Path(output)] if output else [runs]) if not path.exists()]
    folder = folder_for(output, default_name)
    try:
        yield folder
    except BaseException:
        if output is None or new:
            with contextlib.suppress(OSError):  # which holds something else
                folder.rmdir()
            for path in new:
                with contextlib.suppress(OSError):
                    path.rmdir()
        raise
