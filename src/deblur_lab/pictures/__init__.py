"""Pictures for people: what a network was given, what it made of it, where it saw blur and which motion.

Tensors are those of one image, floats with channels first; pictures, taken or returned, are uint8 RGB,
(height, width, 3), ready to be written. Nothing is random: equal inputs give equal pictures.

`panels` lays columns out side by side, `figures` draws one picture with its legend, `layers` draws what lies
over one, `objects` finds what is
blurred and how it moves, `sharpening`, `heat` and `attention` show what a net of several sub-decoders does,
`drawing` holds lines, arrows, colours and words.
"""

from deblur_lab.pictures.attention import BlockAttention, attention_figure
from deblur_lab.pictures.drawing import Picture
from deblur_lab.pictures.figures import (
    PREDICTED,
    TRUE_OUTLINE,
    blur_figure,
    mask_overlay,
    motion_figure,
    trajectory_overlay,
)
from deblur_lab.pictures.heat import FeatureMap, FeatureRow, feature_figure
from deblur_lab.pictures.layers import Layer, mask_layer, trajectory_layer, true_mask_layer
from deblur_lab.pictures.panels import comparison_panel, enlargement, explained_panel
from deblur_lab.pictures.sharpening import sharpening_figure

__all__ = [
    "PREDICTED",
    "TRUE_OUTLINE",
    "BlockAttention",
    "FeatureMap",
    "FeatureRow",
    "Layer",
    "Picture",
    "attention_figure",
    "blur_figure",
    "comparison_panel",
    "enlargement",
    "explained_panel",
    "feature_figure",
    "mask_layer",
    "mask_overlay",
    "motion_figure",
    "sharpening_figure",
    "trajectory_layer",
    "trajectory_overlay",
    "true_mask_layer",
]
