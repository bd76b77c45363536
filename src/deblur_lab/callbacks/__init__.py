"""What is done around training and scoring: scores by protocol, pictures, what a checkpoint carries."""

from deblur_lab.callbacks.bars import Bars
from deblur_lab.callbacks.converter import Converter
from deblur_lab.callbacks.measures import Measures
from deblur_lab.callbacks.net_cost import NetCost
from deblur_lab.callbacks.peak_memory import PeakMemory
from deblur_lab.callbacks.pictures import Pictures
from deblur_lab.callbacks.records import Record, Skipped
from deblur_lab.callbacks.scores import Scores
from deblur_lab.writing import write_json

__all__ = [
    "Bars",
    "Converter",
    "Measures",
    "NetCost",
    "PeakMemory",
    "Pictures",
    "Record",
    "Scores",
    "Skipped",
    "write_json",
]
