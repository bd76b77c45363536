"""What the pictures of the tests show."""

import math

import cv2
import numpy as np
import torch
from skimage import data

from deblur_lab.images import to_tensor

GRAY = np.full((120, 160, 3), 128, np.uint8)


def photograph(height=60, width=80):
    return to_tensor(np.ascontiguousarray(data.chelsea()[80 : 80 + height, 120 : 120 + width]))


def disk(height=60, width=80, radius=18):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((rows - height // 2) ** 2 + (columns - width // 2) ** 2 < radius**2).float()[None]


def straight(x_px, y_px, height=120, width=160):
    """Uniform motion from -(x, y) to (x, y)."""
    motion = torch.linspace(-1, 1, 9).view(9, 1, 1, 1) * torch.tensor([x_px, y_px]).view(2, 1, 1)
    return motion.expand(9, 2, height, width).clone()


def saturated(picture):
    """Where a picture has strong colours: what is drawn, over what is gray."""
    return (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 100


def hue_degrees(picture):
    """The mean direction of the hues of strongly coloured pixels."""
    hues = np.radians(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[..., 0])
    coloured = saturated(picture)
    return math.degrees(np.angle(np.exp(1j * hues[coloured]).mean())) % 360
