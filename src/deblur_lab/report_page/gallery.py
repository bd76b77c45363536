"""The pictures of a subject: each image as it was, as models restored it, and as it should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deblur_lab.charts import cut, signed
from deblur_lab.exhibits import OVERLAYS, StoredExhibit
from deblur_lab.finished_runs import Run
from deblur_lab.report_page.diagrams import MOST_MODELS
from deblur_lab.report_page.embedded import Budget, digest_of, size_of
from deblur_lab.report_page.markup import escaped, notes, titled, unfolding
from deblur_lab.report_page.subjects import Model, Subject

# Of each model, so many images that gained least are shown.
_WORST = 3
# Characters of a label where there is little room.
_SHORT = 40


@dataclass
class Shot:
    """One test image, and what each run made of it.

    Attributes:
        name: of the image.
        anchor: its address in the page.
        restored: by model and run.
    """

    name: str
    anchor: str
    restored: list[tuple[Model, Run, StoredExhibit]] = field(default_factory=list)

    @property
    def exhibit(self) -> StoredExhibit:
        """One of them, for what all have."""
        return self.restored[0][2]


@dataclass(frozen=True)
class _Wanted:
    """A picture that is to stand in the page."""

    kind: str
    label: str
    path: Path
    model: str = ""
    under: str = ""
    legend: str = ""


class Gallery:
    """All pictures of a page, within what it may weigh.

    Args:
        subjects: the parts of the page.
        count: of the images of a subject that are chosen without regard to how well they were restored.
        budget: of the page.
    """

    def __init__(self, subjects: Sequence[Subject], count: int, budget: Budget) -> None:
        self._budget = budget
        self._shots: dict[str, list[Shot]] = {}
        taken: set[Path] = set()
        for subject in subjects:
            runs = {run.folder for model in subject.models for run, _ in model.members}
            # What another part of the page shows is not shown twice.
            self._shots[subject.anchor] = [] if count == 0 or runs <= taken else shots_of(subject, count)
            taken |= runs
        distinct = {
            digest_of(one.path): one.path
            for shots in self._shots.values()
            for shot in shots
            for one in _wanted(shot)
        }
        sizes = [size_of(path) for path in distinct.values()]
        if sizes:
            budget.share_out(sizes)
        self._markup = {anchor: self._drawn(shots) for anchor, shots in self._shots.items()}

    def pictures(self, subject: Subject) -> str:
        """The slider over two pictures, and all pictures side by side; nothing where there are none."""
        inside = self._markup[subject.anchor]
        if not inside:
            return ""
        left_out = [shot.name for shot in self._shots[subject.anchor] if f'id="{shot.anchor}"' not in inside]
        told = []
        if left_out:
            told.append(
                f"{len(left_out)} images are left out, as the page would be too large: they are in the runs' "
                "pictures/exhibits."
            )
        if self._budget.left_out and not left_out:
            told.append("Some pictures are left out, as the page would be too large.")
        side_by_side = unfolding("all pictures side by side", inside, opened=True)
        return f"<div class=looks>{_VIEWER}{side_by_side}</div>{notes(told)}"

    def worst(self, subject: Subject) -> str:
        """Of each model the images that gained least, with pictures where they are in the page."""
        shown = {shot.name: shot.anchor for shot in self._shots[subject.anchor]}
        inside = self._markup[subject.anchor]
        parts = []
        for model in subject.models[:MOST_MODELS]:
            restored, blurry = model.image_scores("psnr_db")
            gains = {name: restored[name] - blurry[name] for name in restored if blurry[name] == blurry[name]}
            cards = ""
            for name in sorted(gains, key=lambda name: gains[name])[:_WORST]:
                anchor = shown.get(name)
                pictures = ""
                if anchor and f'id="{anchor}"' in inside:
                    pictures = (
                        f'<a class=open href="#{anchor}" data-model="{escaped(model.label)}" '
                        f'aria-label="pictures of {escaped(name)}"></a>'
                    )
                gain = signed(gains[name], 2)
                kind = {"+": "gain", "-": "loss"}.get(gain[0], "same")
                cards += (
                    f'<li class="{kind}">{pictures}<b>{escaped(name)}</b> '
                    f"<span>{blurry[name]:.2f} → {restored[name]:.2f} dB "
                    f"<em>({gain} dB)</em></span></li>"
                )
            if cards:
                short = cut(model.label, _SHORT)
                heading = f"<h4{titled(model.label, short)}>{escaped(short)}</h4>"
                heading = heading if len(subject.models) > 1 else ""
                parts.append(f"<div class=worst>{heading}<ol>{cards}</ol></div>")
        if not parts:
            return ""
        told = "The images whose PSNR restoring raised least, or lowered: blurry, restored, sharp."
        if any(len(model.members) > 1 for model in subject.models):
            told += (
                " Scores here are means over a model's seeds; pictures are those of one seed, which is named "
                "over the slider, with its own score below."
            )
        return f"{notes([told])}<div class=cases>{''.join(parts)}</div>"

    def _drawn(self, shots: Sequence[Shot]) -> str:
        """The figures of each image; an image of which a main picture does not fit is left out."""
        drawn = ""
        for shot in shots:
            before = self._budget.state()
            figures, whole = "", True
            for wanted in _wanted(shot):
                figure = self._figure(shot, wanted)
                if not figure and wanted.kind in ("blurry", "sharp"):
                    whole = False
                    break
                figures += figure
            if not whole:
                self._budget.back(before)
                continue
            drawn += (
                f'<section class=shot id="{shot.anchor}" data-name="{escaped(shot.name)}">'
                f"<h4>{escaped(shot.name)}</h4><div class=row>{figures}</div></section>"
            )
        return drawn

    def _figure(self, shot: Shot, wanted: _Wanted) -> str:
        overlay = wanted.kind in OVERLAYS
        # What older versions wrote has a legend below the picture, whose shape is that of the blurry one.
        shape = size_of(shot.exhibit.files["blurry"]) if overlay else None
        image = self._budget.image(wanted.path, f"{wanted.label} of {shot.name}", shape)
        if image is None:
            return ""
        under = "".join(
            f"<br><small>{escaped(text)}</small>" for text in (wanted.under, wanted.legend) if text
        )
        short = cut(wanted.label, _SHORT)
        figure = (
            f'<figure data-kind="{wanted.kind}" data-label="{escaped(wanted.label)}" '
            f'data-short="{escaped(short)}" data-model="{escaped(wanted.model)}" '
            f'data-under="{escaped(wanted.under)}" data-legend="{escaped(wanted.legend)}">'
            f"{image}<figcaption{titled(wanted.label, short)}>{escaped(short)}{under}</figcaption></figure>"
        )
        self._budget.left_bytes -= len(figure.encode()) - len(image)
        return figure


def shots_of(subject: Subject, count: int) -> list[Shot]:
    """The images of which pictures were kept: some that most runs have, and the worst of each model.

    Args:
        subject: whose images they are.
        count: how many are chosen without regard to how well they were restored.

    Raises:
        DataError: an exhibit is damaged.
    """
    found: dict[tuple[str, str], Shot] = {}
    for model in subject.models:
        for run, result in model.members:
            for exhibit in run.exhibits:
                if exhibit.dataset != result["dataset"] or not {"blurry", "restored", "sharp"} <= {
                    *exhibit.files
                }:
                    continue
                # Images of one name are of different scenes where each seed has its own.
                key = (exhibit.name, digest_of(exhibit.files["blurry"]))
                anchor = f"{subject.anchor}-image-{len(found) + 1}"
                found.setdefault(key, Shot(exhibit.name, anchor)).restored.append((model, run, exhibit))
    worst = _worst_names(subject)
    most = max((len(shot.restored) for shot in found.values()), default=0)
    common = [shot for shot in found.values() if len(shot.restored) == most]
    chosen = sorted(common, key=lambda shot: shot.name in worst)[:count]
    more = [shot for shot in found.values() if shot.name in worst and shot not in chosen]
    return sorted(chosen, key=lambda shot: shot.name) + sorted(more, key=lambda shot: shot.name)


def _worst_names(subject: Subject) -> set[str]:
    names = set()
    for model in subject.models:
        restored, blurry = model.image_scores("psnr_db")
        names |= set(sorted(restored, key=lambda name: restored[name] - blurry[name])[:_WORST])
    return names


def _wanted(shot: Shot) -> list[_Wanted]:
    """Blurry and sharp first, as nothing is shown without them; then what models made, one seed of each."""
    own = shot.exhibit
    pictures = [
        _Wanted("blurry", "blurry input", own.files["blurry"], under=_score(own.blurry_scores)),
        _Wanted("sharp", "sharp truth", own.files["sharp"]),
    ]
    for _, _, exhibit in shot.restored:
        if "true_mask" in exhibit.files:  # the same of all
            pictures.append(_overlay(exhibit, "true_mask"))
            break
    first: set[int] = set()
    for model, run, exhibit in shot.restored:
        if id(model) in first:
            continue
        first.add(id(model))
        label = model.label_of(run)
        pictures.append(
            _Wanted(
                "restored", label, exhibit.files["restored"], model.label, _score(exhibit.restored_scores)
            )
        )
        pictures += [
            _overlay(exhibit, kind, label) for kind in ("mask", "trajectories") if kind in exhibit.files
        ]
    return pictures


def _overlay(exhibit: StoredExhibit, kind: str, label: str = "") -> _Wanted:
    words = f"{OVERLAYS[kind]}: {label}" if label else OVERLAYS[kind]
    return _Wanted(kind, words, exhibit.files[kind], label, legend=exhibit.legends.get(kind, ""))


def _score(scores: Mapping[str, float]) -> str:
    parts = [
        f"{scores[name]:.{digits}f}{unit}"
        for name, digits, unit in (("psnr_db", 2, " dB"), ("ssim", 4, " SSIM"))
        if name in scores
    ]
    return ", ".join(parts)


_VIEWER = """<div class=viewer hidden>
<div class=controls>
<label>image <select class=pick></select></label>
<label>left <select class=left></select></label>
<label>right <select class=right></select></label>
<label>overlay <select class=overlay></select></label>
<button type=button class=swap>swap sides</button>
</div>
<div class=stage><img class=below alt=""><img class=above alt=""><span class="tag one"></span>
<span class="tag two"></span><i class=handle aria-hidden=true></i></div>
<p class="note key" aria-live=polite hidden><i class=wheel aria-hidden=true></i><span></span></p>
<input class=wipe type=range min=0 max=100 step=1 value=50
aria-label="how far the left picture reaches, in percent">
<p class="note about" aria-live=polite></p>
</div>"""
