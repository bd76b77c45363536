"""Runs, gathered: Markdown tables and one self-contained HTML page."""

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image

from deblur_lab.command_line import folder_for
from deblur_lab.config import plain
from deblur_lab.console import SCORE_TITLES, say
from deblur_lab.errors import DataError
from deblur_lab.writing import replacing

# Wider pictures are shrunk for the page, which a browser would do anyway.
_PICTURE_WIDTH_PX = 1600
_CURVES = (
    ("train/loss", "training loss, and its running mean"),
    ("val/psnr_db", "validation PSNR (dB)"),
    ("val/weighted_psnr_db", "validation weighted PSNR (dB)"),
)
# A longer curve is noise, in which a running mean over a tenth of it shows the trend.
_NOISY_POINTS = 40


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        folder: of the run.
        scores: the contents of its ``scores.json``.
        curves: (step, value) pairs by logged name.
        pictures: the files in its ``pictures/``.
        configuration: the text of its ``config.yaml``; empty for an evaluation.
    """

    folder: Path
    scores: Mapping[str, Any]
    curves: Mapping[str, list[tuple[int, float]]]
    pictures: Sequence[Path]
    configuration: str


def report(config: DictConfig) -> None:
    """Write ``report.html`` and ``report.md``.

    Args:
        config: ``conf/report.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        DataError: there is no run to report.
    """
    settings = plain(config)
    root = Path(settings["runs"])
    runs = find_runs(root)
    folder = folder_for(settings["output"] or str(root), "")
    for name, text in {"report.md": markdown(runs), "report.html": page(runs, settings["pictures"])}.items():
        with replacing(folder / name) as file:
            file.write(text)
    say(f"{len(runs)} run(s) in {folder / 'report.html'} and {folder / 'report.md'}")


def find_runs(root: Path) -> list[Run]:
    """The finished runs at or below a folder, in order of their paths.

    Raises:
        DataError: there are none, or a ``scores.json`` cannot be read.
    """
    if not root.exists():
        raise DataError(f"runs={root} does not exist")
    found = sorted(root.rglob("scores.json"))
    if not found:
        raise DataError(f"runs={root} holds no finished run (no scores.json in it or below)")
    return [_read(path) for path in found]


def _read(path: Path) -> Run:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(scores, dict) or not isinstance(scores.get("results"), list):
        raise DataError(f"{path} was not written by deblur_lab: it holds no results")
    folder = path.parent
    configuration = folder / "config.yaml"
    run = Run(
        folder,
        scores,
        _curves(folder / "metrics.csv"),
        sorted((folder / "pictures").glob("*.png")),
        configuration.read_text(encoding="utf-8") if configuration.is_file() else "",
    )
    try:
        markdown([run])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} was not written by deblur_lab: its results lack {error}") from error
    return run


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


def _rows(runs: Iterable[Run]) -> Iterable[tuple[Run, Mapping[str, Any], list[tuple[str, str, str, str]]]]:
    """Each run's result on each dataset, with (score, blurry, restored, gain) as they are printed."""
    for run in runs:
        for result in run.scores["results"]:
            lines = []
            for name, restored in result["scores"].items():
                blurry = result["blurry_scores"].get(name)
                digits = 2 if name.endswith("_db") else 4
                gain = "" if None in (restored, blurry) else f"{restored - blurry:+.{digits}f}"
                shown = ["-" if value is None else f"{value:.{digits}f}" for value in (blurry, restored)]
                lines.append((SCORE_TITLES.get(name, name), shown[0], shown[1], gain))
            yield run, result, lines


def _origin(run: Run, result: Mapping[str, Any]) -> str:
    """What must stand beside a number for it to mean anything."""
    keys = ("checkpoint", "trained_on", "seed", "max_steps", "precision", "hardware", "commit")
    known = {key: run.scores.get(key) for key in keys}
    known["trained_on"] = ", ".join(known["trained_on"] or []) or None
    parts = [f"{key} {value}" for key, value in known.items() if value is not None]
    size_px = result.get("tlc_size_px")
    parts.append(f"test-time local converter {f'on ({size_px} px patches)' if size_px else 'off'}")
    return f"{result['images']} images of the {result['split']} split; " + ", ".join(parts)


def markdown(runs: Sequence[Run]) -> str:
    """The tables as Markdown."""
    lines = ["# Runs", ""]
    for run, result, rows in _rows(runs):
        lines += [f"## {run.folder.name} on {result['dataset']}", ""]
        lines += ["| score | blurry | restored | gain |", "| --- | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        protocol = result["protocol"]
        lines += [
            "",
            f"Protocol {protocol['name']}: {protocol['description']}",
            "",
            _origin(run, result) + ".",
            "",
        ]
    return "\n".join(lines)


def page(runs: Sequence[Run], pictures: int) -> str:
    """The HTML page, with its pictures and curves inside; needs no network."""
    body = []
    for run, result, rows in _rows(runs):
        cells = "".join(
            f"<tr><th>{html.escape(row[0])}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
            for row in rows
        )
        protocol = result["protocol"]
        shown = [path for path in run.pictures if path.name.startswith(f"{result['dataset']}-")][:pictures]
        body.append(
            f"<section><h2>{html.escape(run.folder.name)} "
            f"<small>on {html.escape(result['dataset'])}</small></h2>"
            "<table><thead><tr><th>score</th><td>blurry</td><td>restored</td><td>gain</td></tr></thead>"
            f"<tbody>{cells}</tbody></table>"
            f"<p class=note>Protocol {html.escape(protocol['name'])}: "
            f"{html.escape(protocol['description'])}</p>"
            f"<p class=note>{html.escape(_origin(run, result))}.</p>"
            f"<div class=curves>{''.join(_curve(run, name, title) for name, title in _CURVES)}</div>"
            f"{''.join(_figure(path) for path in shown)}"
            + (
                f"<details><summary>configuration</summary><pre>{html.escape(run.configuration)}</pre></details>"
                if run.configuration
                else ""
            )
            + "</section>"
        )
    return _PAGE.replace("@BODY@", "\n".join(body))


def _figure(path: Path) -> str:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"{path} cannot be read as a picture ({error}): remove it") from error
    if picture.width > _PICTURE_WIDTH_PX:
        picture = picture.resize(
            (_PICTURE_WIDTH_PX, round(picture.height * _PICTURE_WIDTH_PX / picture.width)),
            Image.Resampling.LANCZOS,
        )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    name = html.escape(path.stem)
    return f'<figure><img src="data:image/jpeg;base64,{encoded}" alt="{name}"></figure>'


def _curve(run: Run, name: str, title: str) -> str:
    """A small line chart as SVG, with its extremes written at the axes."""
    points = run.curves.get(name, [])
    if len(points) < 2:
        return ""
    steps, values = [point[0] for point in points], [point[1] for point in points]
    low, high, first, last = min(values), max(values), steps[0], steps[-1]
    width, height, left, top = 420, 160, 58, 26

    def line(shown: Sequence[float], kind: str) -> str:
        path = " ".join(
            f"{left + (step - first) / max(1, last - first) * width:.1f},"
            f"{top + (high - value) / ((high - low) or 1) * height:.1f}"
            for step, value in zip(steps, shown, strict=True)
        )
        return f'<polyline points="{path}" class="{kind}"/>'

    lines = line(values, "raw" if len(values) > _NOISY_POINTS else "")
    if len(values) > _NOISY_POINTS:
        reach = len(values) // 20
        windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
        lines += line([sum(window) / len(window) for window in windows], "")
    bottom = top + height
    return (
        f'<svg viewBox="0 0 {left + width + 12} {bottom + 26}" role="img" aria-label="{title}">'
        f'<text x="{left}" y="14" class="title">{title}</text>'
        f'<path d="M{left} {top}V{bottom}H{left + width}" class="axis"/>'
        f'<text x="{left - 6}" y="{top + 5}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{left}" y="{bottom + 18}">step {first}</text>'
        f'<text x="{left + width}" y="{bottom + 18}" text-anchor="end">{last}</text>'
        f"{lines}</svg>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>deblur_lab report</title>
<style>
:root {
  color-scheme: light dark;
  --ink: #1c2127; --soft: #5b6672; --line: #d9dee3; --paper: #fff; --accent: #2060c0;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #39424c; --paper: #14181d; --accent: #6ea8ff; }
}
body { margin: 0 auto; max-width: 1200px; padding: 1.5rem 1rem 4rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
small { color: var(--soft); font-weight: 400; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); font-weight: 400;
}
th { text-align: left; } thead th, thead td { color: var(--soft); font-size: .9rem; }
td:last-child { font-weight: 600; }
.note { color: var(--soft); font-size: .9rem; margin: .4rem 0; overflow-wrap: anywhere; }
.curves { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; } svg { width: 420px; max-width: 100%; }
svg text { font-size: 12px; fill: var(--soft); } svg .title { fill: var(--ink); font-size: 13px; }
svg .axis { fill: none; stroke: var(--line); }
polyline { fill: none; stroke: var(--accent); stroke-width: 1.6; }
polyline.raw { opacity: .3; stroke-width: 1; }
figure { margin: 1rem 0; } img { max-width: 100%; border-radius: 4px; display: block; }
pre { overflow-x: auto; font-size: .85rem; } summary { cursor: pointer; color: var(--soft); }
</style>
<h1>deblur_lab report</h1>
@BODY@
</html>
"""
