"""Motion deblurring: M2AENet and AIBNet, trained, scored and compared."""

__version__ = "0.1.0"
