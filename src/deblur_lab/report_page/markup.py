"""Tables and notes as HTML."""

import html
import itertools
import re
from collections.abc import Sequence

from deblur_lab.model_differences import BLURRY
from deblur_lab.report_tables import Table

_PRINTED = "(published)"
# Columns of words that tell what a row's numbers mean.
_MEANING = ("seeds", "trained on", "protocol", "whose", "source", "note", "settings")


def escaped(text: object) -> str:
    """Text for an element or an attribute."""
    return html.escape(str(text))


def titled(whole: str, shown: str) -> str:
    """The attribute that tells the whole of a text that was cut; nothing if none was."""
    return "" if shown == whole else f' title="{escaped(whole)}"'


def notes(lines: Sequence[str]) -> str:
    """A paragraph a line."""
    return "".join(f"<p class=note>{escaped(line)}</p>" for line in lines)


def unfolding(summary: str, inside: str, *, opened: bool = False, kind: str = "") -> str:
    """What a click shows; a summary is text."""
    css = f' class="{kind}"' if kind else ""
    return f"<details{css}{' open' if opened else ''}><summary>{escaped(summary)}</summary>{inside}</details>"


def numbers_first(table: Table) -> Table:
    """A table with its numbers next to what they are of, what they mean behind them: for narrow screens."""
    behind = [at for at, title in enumerate(table.heading) if table.is_word(at) and title in _MEANING]
    order = [at for at in range(len(table.heading)) if at not in behind] + behind
    moved = {column: at for at, column in enumerate(order)}

    def still(cells: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        return frozenset((row, moved[column]) for row, column in cells)

    words = sum(table.is_word(at) for at in range(table.words) if at not in behind)
    return Table(
        [table.heading[at] for at in order],
        [[row[at] for at in order] for row in table.rows],
        words,
        table.title,
        still(table.bold),
        len(table.heading) - words - sum(not table.is_word(at) for at in range(len(table.heading))),
        still(table.underlined),
        [table.groups[at] for at in order] if table.groups else (),
    )


def table_markup(table: Table, kind: str = "", *, sorts: bool = False) -> str:
    """A table; one that is wider than the page scrolls by itself.

    Args:
        table: its title is not shown.
        kind: a class.
        sorts: whether a page's script may let it be sorted by its columns.
    """
    table = numbers_first(table)

    def cell(at: int, column: int, text: str) -> str:
        words = table.is_word(column)
        tag = "th" if at < 0 or words else "td"
        inside = escaped(text)
        if at < 0 or (words and kind != "gains"):  # long names of settings and paths break there
            inside = re.sub(r"[_./]", r"\g<0><wbr>", inside)
        # How sure a number is stands below it, or a table of many would be too wide.
        mean, plus_minus, deviation = inside.partition(" ± ")
        mean, bracket, interval = (mean, "", "") if words or at < 0 else mean.partition(" [")
        if (at, column) in table.bold:
            mean = f"<b>{mean}</b>"
        elif (at, column) in table.underlined:
            mean = f"<u>{mean}</u>"
        if bracket:
            mean += f"<br><small>[{interval}</small>"
        if plus_minus:
            mean += f"<br><small>± {deviation}</small>"
        scope = ' scope="col"' if at < 0 else ' scope="row"' if column == 0 else ""
        numbers = "" if words else " class=number"
        return f"<{tag}{scope if tag == 'th' else ''}{numbers}>{mean}</{tag}>"

    def row(at: int, cells: Sequence[str]) -> str:
        kind = ""
        if at >= 0:
            kind = (
                " class=input"
                if cells[0] == BLURRY
                else " class=printed"
                if cells[0].endswith(_PRINTED)
                else ""
            )
        return f"<tr{kind}>{''.join(cell(at, column, text) for column, text in enumerate(cells))}</tr>"

    body = "".join(row(at, cells) for at, cells in enumerate(table.rows))
    classes = " ".join(filter(None, [kind, "sorts" if sorts and len(table.rows) > 1 else ""]))
    css = f' class="{classes}"' if classes else ""
    label = escaped(table.title or table.heading[0])
    return (
        f'<div class=wide tabindex=0 role=region aria-label="{label}">'
        f"<table{css}><thead>{_groups(table)}{row(-1, table.heading)}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _groups(table: Table) -> str:
    """A row above the headings, where columns stand in groups."""
    if not table.groups:
        return ""
    cells = []
    for name, columns in itertools.groupby(table.groups):
        count = len(list(columns))
        kind = 'th scope="colgroup" class=group' if name else "td"
        cells.append(f"<{kind} colspan={count}>{escaped(name)}</{kind[:2]}>")
    return f"<tr>{''.join(cells)}</tr>"
