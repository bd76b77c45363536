"""What models are called in tables: as the papers call them."""

# The sizes of AIBNet, by its sub-decoders.
_AIBNET_SIZES = {1: "S", 2: "B", 4: "L"}


def model_name(net: str, sub_decoders: int | None = None) -> str:
    """The name of a model.

    Args:
        net: its class, with or without the module.
        sub_decoders: how many an AIBNet has.

    >>> model_name("deblur_lab.models.NAFNet"), model_name("AIBNet", 2), model_name("AIBNet", 3)
    ('NAFNet', 'AIBNet-B', 'AIBNet')
    """
    name = net.rpartition(".")[2]
    size = _AIBNET_SIZES.get(sub_decoders or 0) if name == "AIBNet" else None
    return f"{name}-{size}" if size else name
