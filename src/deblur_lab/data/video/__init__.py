"""Pairs from videos, which `deblur_lab.data.from_video` makes.

`files` reads a video, `clips` says which there are and for which split each is, `footage` which stretches of
them make a good pair, `averaging` makes blur of these, and `making` writes the dataset.
"""
