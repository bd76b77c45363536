"""What was found in a dataset, as tables on the screen and as JSON."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deblur_lab.data.published_sets import ExpectedSet
from deblur_lab.data.samples import Split
from deblur_lab.data.verifying.contents import Average, average_of, brightness_of, fingerprint
from deblur_lab.data.verifying.findings import KINDS, Finding
from deblur_lab.data.verifying.inspection import PairFacts
from deblur_lab.data.verifying.listings import Listed, sequences_of
from deblur_lab.data.verifying.pictures import sharper
from deblur_lab.images import quoted

_EXAMPLES = 3
# Highlighting would colour every number of a path, and folding would break it.
_console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Verified:
    """A dataset that was looked through.

    Attributes:
        name: Of its source.
        root: Its folder.
        layouts: The layout of each split.
        made_up: Whether `data.synthesize` wrote it.
        from_video: Whether `data.from_video` wrote it: a person's own pairs.
        masks_from: The name of the folder of its masks, if it has any.
        expected: What it was held against.
        listed: Its splits.
        facts: What was measured of each pair.
        findings: Faults and warnings.
    """

    name: str
    root: Path
    layouts: Mapping[Split, str]
    made_up: bool
    from_video: bool
    masks_from: str | None
    expected: ExpectedSet
    listed: tuple[Listed, ...]
    facts: tuple[PairFacts, ...]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What spoils it."""
        return tuple(finding for finding in self.findings if finding.is_fault)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may be all right."""
        return tuple(finding for finding in self.findings if not finding.is_fault)

    @property
    def files(self) -> int:
        """How many files were read."""
        masks = sum(pair.mask is not None for of_split in self.listed for pair in of_split.pairs)
        twins = sum(fact.other_mean is not None for fact in self.facts)
        return 2 * len(self.facts) + masks + twins

    def of_split(self, split: Split) -> list[PairFacts]:
        """What was measured of the pairs of a split."""
        return [fact for fact in self.facts if fact.split == split]


def record_of(verified: Verified) -> dict[str, Any]:
    """What `verify.json` says of a dataset; docs/verify.md describes it."""
    masks = fingerprint(verified.facts)
    return {
        "dataset": verified.name,
        "root": str(verified.root),
        "made_up": verified.made_up,
        "from_video": verified.from_video,
        "sound": not verified.faults,
        "splits": {of_split.split: _split_record(verified, of_split) for of_split in verified.listed},
        "masks": None
        if masks is None
        else {
            "folder": verified.masks_from,
            "count": masks[2],
            "fingerprint": masks[0],
            "mean_blurred_share": masks[1],
        },
        "faults": [_finding_record(finding, verified.root) for finding in verified.faults],
        "warnings": [_finding_record(finding, verified.root) for finding in verified.warnings],
    }


def _split_record(verified: Verified, listed: Listed) -> dict[str, Any]:
    facts = verified.of_split(listed.split)
    numbers = verified.expected.splits.get(listed.split)
    sequences = {name: count for name, count in sequences_of(listed, verified.expected).items() if name}
    blurry = [fact.blurry for fact in facts if fact.blurry is not None]
    average = average_of(facts, verified.expected)
    return {
        "layout": verified.layouts[listed.split],
        "pairs": len(listed.pairs),
        "expected_pairs": None if numbers is None else numbers.pairs,
        "sequences": sequences,
        "expected_sequences": None if numbers is None else numbers.sequences,
        "sizes": _counted(f"{width}x{height}" for width, height in (fact.size_px for fact in blurry)),
        "formats": _counted(fact.format for fact in blurry),
        "input_psnr_db": _input_psnr_db(facts),
        "mean_value": {"blurry": _mean([fact.mean for fact in blurry]), "sharp": brightness_of(facts)},
        "sharpness_ratio": _sharpness_ratio(facts),
        "averaging": None
        if average is None
        else {"kind": average.kind, "position": average.position, "error": average.error},
    }


def _finding_record(finding: Finding, root: Path) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "title": KINDS[finding.kind].title,
        "split": finding.split,
        "found": finding.found,
        "expected": finding.expected,
        "advice": finding.what_to_do,
        "files": [
            str(path.relative_to(root) if path.is_relative_to(root) else path) for path in finding.files
        ],
    }


def _counted(values: Any) -> dict[str, int]:  # noqa: ANN401 - any iterable of strings
    return dict(Counter(values).most_common())


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _input_psnr_db(facts: Sequence[PairFacts]) -> float | None:
    return _mean([fact.psnr_db for fact in facts if fact.psnr_db is not None and math.isfinite(fact.psnr_db)])


def _sharpness_ratio(facts: Sequence[PairFacts]) -> float | None:
    """The median of squared gradients of blurry pictures, divided by those of sharp ones."""
    ratios = [sharper(fact) for fact in facts if fact.blurry is not None and fact.sharp is not None]
    return statistics.median(ratios) if ratios else None


def print_verified(verified: Verified) -> None:
    """Print what a dataset is made of, and what is wrong with it."""
    layouts = " and ".join(dict.fromkeys(verified.layouts.values()))
    made_by = ", made up by data.synthesize" if verified.made_up else ""
    if verified.from_video:
        made_by = ", pairs from video"
    _say(f"{verified.name} in {quoted(verified.root)} (layout {layouts}{made_by})")
    if verified.from_video:
        _say(
            "from_video.json is there: pairs of your own, of which no published counts or sizes are expected"
        )
    _console.print(_table_of_splits(verified))
    for of_split in verified.listed:
        average = average_of(verified.of_split(of_split.split), verified.expected)
        if average is not None and verified.expected.blurred is not None:
            twins = sum(fact.other_mean is not None for fact in verified.of_split(of_split.split))
            _say(f"{of_split.split}: {_averaged(average, twins)}")
    masks = fingerprint(verified.facts)
    if masks is not None:
        folder = f" from {verified.masks_from}/" if verified.masks_from else ""
        _say(f"{masks[2]} masks{folder}: {masks[1]:.1%} blurred on average, fingerprint {masks[0]}")
    for title, findings in (("faults", verified.faults), ("warnings", verified.warnings)):
        if findings:
            _print_findings(title, findings)
    if not verified.faults:
        count = len(verified.warnings)
        _say(f"{verified.name} is sound" + (f", but for {count} warning(s): look at them" if count else ""))


def _table_of_splits(verified: Verified) -> Table:
    table = Table()
    table.add_column("split")
    # Without counts to expect, as of a part of a dataset, their columns would be empty.
    expects = bool(verified.expected.splits)
    columns = ("pairs", "expected", "sequences", "expected", "size", "PSNR of the blurry (dB)")
    for column in columns if expects else [column for column in columns if column != "expected"]:
        table.add_column(column, justify="right")
    there = {of_split.split: of_split for of_split in verified.listed}
    for split in dict.fromkeys([*verified.expected.splits, *there]):
        numbers = verified.expected.splits.get(split)
        pairs, sequences_expected = (
            ("-", "-") if numbers is None else (str(numbers.pairs), str(numbers.sequences or "-"))
        )
        of_pairs, of_sequences = ([pairs], [sequences_expected]) if expects else ([], [])
        if split not in there:
            table.add_row(split, "none", *of_pairs, "none", *of_sequences, "-", "-")
            continue
        facts = verified.of_split(split)
        sequences = [name for name in sequences_of(there[split], verified.expected) if name]
        sizes = list(_counted("x".join(map(str, fact.blurry.size_px)) for fact in facts if fact.blurry))
        psnr_db = _input_psnr_db(facts)
        table.add_row(
            split,
            str(len(there[split].pairs)),
            *of_pairs,
            str(len(sequences)) if sequences else "-",
            *of_sequences,
            ("-" if not sizes else sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes"),
            "-" if psnr_db is None else f"{psnr_db:.2f}",
        )
    return table


def _averaged(average: Average, twins: int) -> str:
    what = {
        "stored": "blur averages stored values, as in blur",
        "light": "blur averages light, as in blur_gamma",
        None: "what blur averages is not certain",
    }
    compared = f"; {twins} pictures were compared with the other folder's" if twins else ""
    return (
        f"{what[average.kind]} by its brightness (stored values 0, light 1: "
        f"{average.position:.2f} +- {average.error:.2f}){compared}"
    )


def _print_findings(title: str, findings: Sequence[Finding]) -> None:
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    table = Table(title=title, title_justify="left")
    table.add_column("kind")
    table.add_column("count", justify="right")
    table.add_column("what")
    for kind, of_kind in kinds.items():
        table.add_row(kind, str(len(of_kind)), KINDS[kind].title)
    _console.print(table)
    for kind, of_kind in kinds.items():
        for finding in of_kind[:_EXAMPLES]:
            _say(f"{kind}: {finding.found}; expected: {finding.expected}")
        if len(of_kind) > _EXAMPLES:
            _say(f"{kind}: and {len(of_kind) - _EXAMPLES} more")
        for advice in dict.fromkeys(finding.what_to_do for finding in of_kind):
            _say(f"  {advice}")


def _say(line: str) -> None:
    _console.print(line, markup=False)
