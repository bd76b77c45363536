"""Charts as SVG, to stand in an HTML page that colours them: lines, strips of single values, intervals, dots.

Colours are classes, ``c0`` to ``c7``, so that a page can have others in the dark.
"""

from deblur_lab.charts.axes import COLOURS, cut, signed
from deblur_lab.charts.dots import Dot, dot_chart
from deblur_lab.charts.intervals import Interval, interval_chart
from deblur_lab.charts.lines import Line, line_chart
from deblur_lab.charts.strips import Strip, strip_chart

__all__ = [
    "COLOURS",
    "Dot",
    "Interval",
    "Line",
    "Strip",
    "cut",
    "dot_chart",
    "interval_chart",
    "line_chart",
    "signed",
    "strip_chart",
]
