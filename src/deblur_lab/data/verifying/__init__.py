"""What `deblur_lab.data.verify` looks for in a dataset's folder, how it is measured, and how it is told.

`inspection` reads the pictures of one pair, each once, and measures them.
`listings`, `pictures` and `contents` judge: names and counts, single files, and what whole sets show.
`findings` names what may be wrong, `report` tells it. Nothing here needs PyTorch, which worker processes
would take seconds to import.
"""
