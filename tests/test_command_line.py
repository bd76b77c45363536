"""What is typed reaches the configuration as it was typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from deblur_lab.command_line import as_typed


@pytest.mark.parametrize(
    "path",
    [
        "/data/ReLoBlur",
        "/data/My Photos (2024) [raw]",
        "runs/a=b,c",
        "it's/here",
        "C:\\photos\\new",
        "ends in backslash\\",
        "a\\'b",
        "{x}",
        "${x}",
        "фото/写真",
        "~/photos",
    ],
)
def test_paths_are_taken_as_typed(path):
    override = OverridesParser.create().parse_override(as_typed(f"checkpoint={path}"))
    assert override.key_or_group == "checkpoint"
    config = OmegaConf.create({"checkpoint": override.value()})
    assert config.checkpoint == path


def test_other_settings_keep_hydras_grammar():
    override = OverridesParser.create().parse_override(as_typed("model.net.encoder_blocks=[1,2]"))
    assert override.value() == [1, 2]


def test_null_paths_stay_null():
    assert OverridesParser.create().parse_override(as_typed("resume=null")).value() is None
