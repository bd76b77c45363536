"""Training pictures that are decoded once and read a part at a time, which `deblur_lab.data.prepare` writes.

`tiles` is the format, `making` writes it for whole datasets, `scenes` finds what was written and reads it.
"""
