"""What a person writes for a command."""

from pathlib import Path


def yaml(folder: Path, name: str, text: str) -> None:
    """Write a YAML of one's own, as `data/mine`, into a folder."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
