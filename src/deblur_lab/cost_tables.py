"""A profile as a table on the screen, and what must be said beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from deblur_lab.console import say
from deblur_lab.multiply_adds import ATTENTION
from deblur_lab.net_parts import SUB_DECODER, linear
from deblur_lab.published_costs import Published


def print_costs(contents: Mapping[str, Any], published: Published | None) -> None:
    """Print a profile.

    Args:
        contents: of ``profile.json``.
        published: what the paper gives for the same, if it does.
    """
    table = Table(title=_title(contents))
    table.add_column("", no_wrap=True)
    for result in contents["results"]:
        table.add_column(result["name"], justify="right")
    for row in _rows(contents, published):
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True).print(table)
    for line in _notes(contents, published):
        say(line)


def _title(contents: Mapping[str, Any]) -> str:
    width_px, height_px = contents["size_px"]
    size = f"{width_px} x {height_px}"
    if contents["padded_size_px"] not in (None, contents["size_px"]):
        size += " (padded to {} x {})".format(*contents["padded_size_px"])
    threads = f", {contents['threads']} threads" if contents["device"] == "cpu" else ""
    return f"{contents['model']}, {size}, {contents['device']}{threads}, {contents['precision']}"


def _rows(contents: Mapping[str, Any], published: Published | None) -> list[list[str]]:
    results = contents["results"]
    kinds = dict.fromkeys(kind for result in results for kind in result["multiply_adds_by_operation"])
    columns = [result["name"].rpartition(", ")[2] for result in results]
    rows = [["parameters", *(f"{result['parameters']:,}" for result in results)]]
    if published is not None and published.parameters_m:
        rows.append(
            ["  the paper's (M)", *(_or_dash(published.parameters_m.get(name), ".2f") for name in columns)]
        )
    parts = list(dict.fromkeys(part["name"] for result in results for part in result["parts"]))
    rows += [
        [f"  {name}", *(_of_part(result, name, lambda part: f"{part['parameters']:,}") for result in results)]
        for name in parts
    ]
    if published is not None and published.trained_m:
        rows.append(
            [
                "  trained at a time: the paper's (M)",
                *(_or_dash(published.trained_m.get(name), ".1f") for name in columns),
            ]
        )
    rows.append(["multiply-adds (G)", *(_giga(result["multiply_adds"]) for result in results)])
    rows += [
        [f"  {kind}", *(_giga(result["multiply_adds_by_operation"].get(kind, 0)) for result in results)]
        for kind in kinds
    ]
    if published is not None and published.multiply_adds_t:
        counts = [published.multiply_adds_t.get(name) for name in columns]
        rows.append(["  the paper's (G)", *(_or_dash(count and 1000 * count, ".0f") for count in counts)])
    rows += [
        [
            f"  of {name}",
            *(_of_part(result, name, lambda part: _giga(part["multiply_adds"])) for result in results),
        ]
        for name in parts
    ]
    if any(_sub_decoders(result) for result in results):
        of_results = [_sub_decoders(result) for result in results]
        rows.append(
            [
                "  sub-decoders, convolutions and linear maps",
                *(_giga(sum(map(linear, of))) for of in of_results),
            ]
        )
        if published is not None:
            printed = [published.sub_decoders_g.get(name) for name in columns]
            rows.append(["    the paper's (G)", *(_or_dash(count, ".0f") for count in printed)])
        rows.append(["  sub-decoders, attention products", *(_giga(_attention(of)) for of in of_results)])
    rows.append(["latency (s), median", *(f"{result['seconds']['median']:.4g}" for result in results)])
    rows.append(
        [
            f"  from, to, of {contents['passes']}",
            *("{min:.4g}, {max:.4g}".format(**result["seconds"]) for result in results),
        ]
    )
    peaks = [result["peak_memory_bytes"] for result in results]
    rows.append(["peak memory (GiB)", *(_or_dash(peak and peak / 2**30, ".3f") for peak in peaks)])
    return rows


def _of_part(result: Mapping[str, Any], name: str, shown: Callable[[Mapping[str, Any]], str]) -> str:
    """What is shown of a part of a column, if it has that."""
    return next((shown(part) for part in result["parts"] if part["name"] == name), "-")


def _sub_decoders(result: Mapping[str, Any]) -> list[Mapping[str, int]]:
    """The multiply-adds of each sub-decoder, by operation."""
    return [
        part["multiply_adds_by_operation"] for part in result["parts"] if part["name"].startswith(SUB_DECODER)
    ]


def _attention(counts: Sequence[Mapping[str, int]]) -> int:
    return sum(one.get(ATTENTION, 0) for one in counts)


def _or_dash(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def _giga(count: int) -> str:
    return "-" if count == 0 else f"{count / 1e9:.4g}" if count < 1e11 else f"{count / 1e9:.1f}"


def _notes(contents: Mapping[str, Any], published: Published | None) -> list[str]:
    notes = []
    if contents["selected_share"] is not None:
        notes.append(
            f"mask: {contents['selected_share']:.2%} of the pixels of the masked stages, "
            f"{contents['dilated_share']:.2%} with their neighbours, made of blobs; "
            f"pruned and dense agree to {contents['difference_pruned_dense']:.0e} of the largest change"
        )
    notes += [
        f"time of {pair}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        for pair, ratio in contents["time_ratios"].items()
    ]
    if all(result["peak_memory_bytes"] is None for result in contents["results"]):
        notes.append("peak memory is measured on Linux and on GPUs of CUDA alone")
    else:
        notes.append("peak memory is what a pass needs beyond weights, input and the program itself")
    if contents["checkpoint"] is None:
        notes.append("the weights are random, and so is the picture: that changes no count")
    if published is not None:
        notes += published.notes
    return notes
