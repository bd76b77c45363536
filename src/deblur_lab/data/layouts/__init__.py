"""How datasets lie on disk: which blurry picture, sharp picture and mask belong together.

A layout is recognised by its folders and finds its pairs by names alone: no picture is opened, and no name
is taken for a pattern. Pictures are the files with one of `images.PICTURE_SUFFIXES` whose names do not begin
with a dot; other files are left alone, as are masks that belong to no pair. Names are compared without what
follows their last dot, and in Unicode's composed form, as some systems store names decomposed.

A symbolic link may point to anything inside the data folder; one that leaves it is a fault, unless
`DataFolder` is told to follow it.
"""

from deblur_lab.data.layouts.faults import Fault, FaultKind
from deblur_lab.data.layouts.finding import Found, Layout, find_layouts
from deblur_lab.data.layouts.folders import DataFolder, open_root
from deblur_lab.data.layouts.gopro import RawGoPro
from deblur_lab.data.layouts.hide import RawHIDE
from deblur_lab.data.layouts.near import names_in, told_near_misses
from deblur_lab.data.layouts.paired import HeldOutFolders, PairedFolders
from deblur_lab.data.layouts.pairing import Listing, Pair
from deblur_lab.data.layouts.realblur import RawRealBlur
from deblur_lab.data.layouts.reloblur import RawReLoBlur

__all__ = [
    "DataFolder",
    "Fault",
    "FaultKind",
    "Found",
    "HeldOutFolders",
    "Layout",
    "Listing",
    "Pair",
    "PairedFolders",
    "RawGoPro",
    "RawHIDE",
    "RawReLoBlur",
    "RawRealBlur",
    "find_layouts",
    "names_in",
    "open_root",
    "told_near_misses",
]
