"""Models side by side as tables of text: by dataset, over several datasets, by settings, and pair by pair."""

from collections.abc import Mapping, Sequence

from deblur_lab.comparison import SETTINGS_TOLD, Comparison, Row, together
from deblur_lab.console import SCORE_TITLES
from deblur_lab.leaderboard import Entry, Leaderboard
from deblur_lab.model_differences import BLURRY, SCORES, ModelDifference, shown_difference, shown_interval
from deblur_lab.overview import Overview
from deblur_lab.report_measures import Spread, measure_of
from deblur_lab.report_tables import Table
from deblur_lab.scored_results import known_model
from deblur_lab.setting_differences import UNSET
from deblur_lab.significance import PairedDifference

# Of more runs in a row than these, not all are named.
_NAMES = 2
_ADDS = "multiply_adds"
_PUBLISHED = " (published)"
# Of what best and second are not found of.
_MARK = " †"
_COSTS = {"parameters": "parameters (M)", _ADDS: "multiply-adds (G)"}


def comparison_table(comparison: Comparison) -> Table:
    """Runs side by side, the scores of their input above them, and the best in bold.

    Many settings stand behind the scores, in one column.
    """
    columns, headings = comparison.columns, comparison.headings
    few = len(headings) <= SETTINGS_TOLD
    named = not few or any(row.evaluated for row in comparison.rows)
    own = (
        *(("run",) if named else ()),
        *(("model",) if comparison.model else ()),
        *(headings if few else ()),
    )
    heading = (*own, "trained on", "protocol", "seeds")
    behind = () if few else ("settings",)
    above = []
    if any(comparison.blurry.values()):
        cells = [_measured(comparison.blurry[name], name) for name in columns]
        words = [BLURRY, *[""] * (len(heading) - 1)]
        if own:
            words[len(own)] = "-"
        words[len(own) + 1] = comparison.protocol
        above.append([*words, *cells, *("-" for _ in behind)])
    rows = [
        [
            *([_marked(row.evaluated or _named(row.names), bool(row.repeats))] if named else []),
            *([_model(row)] if comparison.model else []),
            *(row.settings if few else []),
            row.trained_on,
            row.protocol,
            _seeds(row),
            *(_measured(row.cells[name], name, len(row.seeds)) for name in columns),
            *([] if few else [_joined(headings, row)]),
        ]
        for row in comparison.rows
    ]
    places = {
        (len(above) + at, len(heading) + number): comparison.place(row, name)
        for at, row in enumerate(comparison.rows)
        for number, name in enumerate(columns)
    }
    titles = (measure_of(name).title for name in columns)
    return Table(
        (*heading, *titles, *behind),
        above + rows,
        len(heading),
        comparison.title,
        _at(places, 1),
        len(behind),
        _at(places, 2),
    )


def leaderboard_table(board: Leaderboard, *, ranked: bool = False) -> Table:
    """Models side by side as the papers have them: scores, parameters, multiply-adds; and what was printed.

    The best is bold and the second underlined. Rows that are not ranked have a mark, which the notes explain.
    Rows that were printed say so, and whose they are.

    Args:
        board: whose entries are the rows.
        ranked: of what was printed, only what best and second are found of.
    """
    entries = [*board.entries, *(entry for entry in board.published if entry.ranked or not ranked)]
    blurry = None
    if any(board.blurry.values()):
        blurry = (board.protocol, [_measured(board.blurry[name], name) for name in board.columns])
    return _of_models(
        board.title,
        [measure_of(name).title for name in board.columns],
        [(entry, [_entered(entry, name) for name in board.columns]) for entry in entries],
        [[board.place(entry, name) for name in board.columns] for entry in entries],
        blurry,
        sources=bool(board.published),
    )


def overview_table(overview: Overview) -> Table:
    """Models on several datasets, whose scores stand next to each other; else as `leaderboard_table`."""
    columns = [
        (number, dataset.name, column)
        for number, dataset in enumerate(overview.datasets)
        for column in dataset.columns
    ]
    boards = [dataset.board for dataset in overview.datasets]
    rows = []
    for row in overview.rows:
        cells = [
            _entered(row.scored[number], column) if number in row.scored else "-"
            for number, _, column in columns
        ]
        rows.append((row.entry, cells))
    blurry = None
    if any(any(board.blurry.values()) for board in boards):
        told = [_measured(boards[number].blurry.get(column), column) for number, _, column in columns]
        blurry = (together(board.protocol for board in boards if any(board.blurry.values())), told)
    return _of_models(
        overview.title,
        [measure_of(column).title for _, _, column in columns],
        rows,
        [[overview.place(row, number, column) for number, _, column in columns] for row in overview.rows],
        blurry,
        sources=any(row.entry.published is not None for row in overview.rows),
        groups=[name for _, name, _ in columns],
    )


def _of_models(
    title: str,
    scores: Sequence[str],
    rows: Sequence[tuple[Entry, Sequence[str]]],
    places: Sequence[Sequence[int | None]],
    blurry: tuple[str, Sequence[str]] | None,
    *,
    sources: bool,
    groups: Sequence[str] = (),
) -> Table:
    """A table whose rows are models.

    Args:
        title: of it.
        scores: the headings of the columns that hold scores.
        rows: entries, each with its cells in those columns.
        places: of these cells, 1 for the best.
        blurry: the protocol of the blurry input and its cells; None without it.
        sources: whether a column says whose each row is.
        groups: what stands above each column of scores; empty if nothing does.
    """
    entries = [entry for entry, _ in rows]
    details = any(entry.details for entry in entries)
    costs = [kind for kind in _COSTS if any(getattr(entry, kind) is not None for entry in entries)]
    sizes = {entry.size_px for entry in entries if entry.multiply_adds is not None}
    # Multiply-adds of one size for all stand in the heading, of several in each cell.
    size = sizes.pop() if len(sizes) == 1 else None
    heading = (
        "model",
        *(("what differs",) if details else ()),
        *("trained on", "protocol", "seeds"),
    )
    behind = ("source",) if sources else ()
    above = []
    if blurry is not None:
        words = [BLURRY, *[""] * (len(heading) - 1)]
        words[-3:-1] = ["-", blurry[0]]
        above.append([*words, *blurry[1], *("-" for _ in costs), *("-" for _ in behind)])
    body = [
        [
            f"{_marked(entry.model, not entry.ranked)}{'' if entry.published is None else _PUBLISHED}",
            *((entry.details,) if details else ()),
            *(entry.trained_on, entry.protocol, _seeds_of(entry)),
            *cells,
            *(_cost(entry, kind, size) for kind in costs),
            *((_source(entry),) if behind else ()),
        ]
        for entry, cells in rows
    ]
    placed = {
        (len(above) + at, len(heading) + number): place
        for at, own in enumerate(places)
        for number, place in enumerate(own)
    }
    of_size = "" if size is None else f" at {size[0]}x{size[1]}"
    return Table(
        (
            *heading,
            *scores,
            *(f"{_COSTS[kind]}{of_size if kind == _ADDS else ''}" for kind in costs),
            *behind,
        ),
        above + body,
        len(heading),
        title,
        _at(placed, 1),
        len(behind),
        _at(placed, 2),
        [*("" for _ in heading), *groups, *("" for _ in (*costs, *behind))] if groups else (),
    )


def narrowed(table: Table) -> Table:
    """A table as far as a screen has room: the main scores, and not where they come from."""
    main = {*SCORE_TITLES.values()}
    kept = [
        column
        for column, title in enumerate(table.heading)
        if (column < table.words and title not in ("trained on", "protocol"))
        or title in main
        or title.startswith(tuple(_COSTS.values()))
    ]
    moved = {column: at for at, column in enumerate(kept)}

    def still(cells: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        return frozenset((row, moved[column]) for row, column in cells if column in moved)

    def short(row: Sequence[str], column: int) -> str:
        text = row[column]
        if table.heading[column] == "seeds":
            return "published" if row[0].endswith(_PUBLISHED) else text.partition(" (")[0]
        if column == 0:
            return text.removesuffix(_PUBLISHED)
        return text.replace(" ± ", "\n± ")

    # Multiply-adds' size, which is no number of the column's, goes to the title, as does what a mark means.
    headings = [table.heading[column] for column in kept]
    sized = next((text for text in headings if text.startswith(f"{_COSTS[_ADDS]} at ")), "")
    unranked = "; † not ranked" if any(_MARK in row[0] for row in table.rows) else ""
    return Table(
        [
            text.partition(" at ")[0].replace("multiply-", "mult.-").replace("parameters", "params")
            for text in headings
        ],
        [[short(row, column) for column in kept] for row in table.rows],
        sum(column < table.words for column in kept),
        f"{table.title}{sized.replace(_COSTS[_ADDS], '; multiply-adds')}{unranked}",
        still(table.bold),
        0,
        still(table.underlined),
    )


def difference_table(differences: Sequence[ModelDifference]) -> Table | None:
    """How models differ, a pair a row; None where there is no pair.

    Pairs that cannot be compared say why, unless none can.
    """
    if not any(pair.scores for pair in differences):
        return None
    scores = [name for name in SCORES if any(name in pair.scores for pair in differences)]
    # Where one training stands against one, the interval is of images alone itself.
    seeds = any(max(found.seeds) > 1 for pair in differences for found in pair.scores.values())
    rows = []
    for pair in differences:
        found = next(iter(pair.scores.values()), None)
        told = ("-", "-") if found is None else (_images(found), _of_seeds(found.seeds, pair.second))
        cells = [shown_difference(name, pair.scores[name]) if name in pair.scores else "-" for name in scores]
        better = pair.why_not if found is None else f"{100 * found.share_better:.0f} %"
        alone = pair.scores.get(scores[0])
        images = ["-" if alone is None else shown_interval(scores[0], *alone.over_images)] if seeds else []
        rows.append((pair.first, pair.second, *told, *cells, *images, better))
    titles = [measure_of(name).title for name in scores]
    titles += [f"{titles[0]}, images alone"] if seeds else []
    first = measure_of(scores[0]).title.partition(" (")[0]
    heading = ("first", "less second", "images", "seeds", *titles, f"images with more {first}")
    clear = {
        (at, 4 + number)
        for at, pair in enumerate(differences)
        for number, name in enumerate(scores)
        if name in pair.scores and pair.scores[name].excludes_zero
    }
    return Table(heading, rows, 2, "differences of the same images, with 95 % intervals", frozenset(clear))


def _at(places: Mapping[tuple[int, int], int | None], place: int) -> frozenset[tuple[int, int]]:
    return frozenset(cell for cell, found in places.items() if found == place)


def _seeds_of(entry: Entry) -> str:
    """How many and which, and of how many runs; nothing of an evaluation and of what was printed."""
    return _counted(entry.seeds, len(entry.members)) if entry.seeds else ""


def _entered(entry: Entry, column: str) -> str:
    """A number with its spread; of what was printed, in the digits that it was printed with."""
    if entry.published is not None:
        return entry.published.numbers.get(column, "-")
    return _measured(entry.cells.get(column), column, len(entry.seeds))


def _cost(entry: Entry, kind: str, size: tuple[int, int] | None) -> str:
    number = getattr(entry, kind)
    if number is None:
        return "-"
    if kind != _ADDS:
        return f"{number / 1e6:.2f}"
    own = entry.size_px if size is None else None
    text = f"{number / 1e9:.0f}" if number >= 1e11 else f"{number / 1e9:.3g}"
    return text if own is None else f"{text} at {own[0]}x{own[1]}"


def _source(entry: Entry) -> str:
    if entry.published is None:
        return "ours"
    told = (entry.published.source, entry.published.reported, entry.published.note)
    return "; ".join(text for text in told if text)


def _images(found: PairedDifference) -> str:
    return f"{found.count}" if found.groups is None else f"{found.count} of {found.groups} sequences"


def _of_seeds(seeds: tuple[int, int], second: str) -> str:
    return str(seeds[0]) if second == BLURRY else f"{seeds[0]} and {seeds[1]}"


def _marked(text: str, marked: bool) -> str:
    return f"{text}{_MARK}" if marked else text


def _model(row: Row) -> str:
    return known_model(row.members[0][0]) or "-"


def _seeds(row: Row) -> str:
    """How many and which; how many runs, if some seed has several; nothing of an evaluation."""
    if row.evaluated:
        return ""
    return _counted(row.seeds, row.runs)


def _counted(seeds: Sequence[str], runs: int) -> str:
    text = f"{len(seeds)} ({', '.join(seeds)})"
    return f"{text}, {runs} runs" if runs > len(seeds) else text


def _joined(headings: Sequence[str], row: Row) -> str:
    """The settings that a row has, as they are typed; none of an evaluation."""
    if row.evaluated:
        return "-"
    pairs = zip(headings, row.settings, strict=True)
    return ", ".join(f"{name}={value}" for name, value in pairs if value != UNSET)


def _named(runs: Sequence[str]) -> str:
    more = f" and {len(runs) - _NAMES} more" if len(runs) > _NAMES else ""
    return ", ".join(runs[:_NAMES]) + more


def _measured(cell: Spread | None, column: str, seeds: int = 0) -> str:
    """Mean and spread, and of how many seeds, if not all have the number."""
    if cell is None:
        return "-"
    digits = measure_of(column).digits
    text = f"{cell.mean:.{digits}f}"
    if cell.deviation is not None:
        text += f" ± {cell.deviation:.{digits}f}"
    return f"{text} ({cell.count} of {seeds})" if cell.count < seeds else text
