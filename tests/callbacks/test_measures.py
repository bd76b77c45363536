"""What is measured of tasks that restore nothing, from their logs to a file."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from deblur_lab.callbacks import Measures


class Measuring(L.LightningModule):
    """Logs some values, and one that is nobody's measure."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        self.log("train/loss", 3.0)
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/found", 0.25)

    def test_step(self, batch, batch_idx):
        self.log("test/found", 0.75)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(*callbacks):
    return L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip


DATA = DataLoader([torch.zeros(1)], batch_size=None)


def test_what_was_validated_and_tested_is_kept_and_written_down(tmp_path):
    measures = Measures(tmp_path, {"seed": 3})
    module, run = Measuring(), trainer(measures)
    run.fit(module, DATA, DATA)
    assert measures.results == {}
    run.test(module, DATA, verbose=False)
    assert measures.results == {"val/found": 0.25, "test/found": 0.75}
    written = json.loads((tmp_path / "measures.json").read_text())
    assert written == {"seed": 3, "measures": measures.results}


def test_a_run_that_is_resumed_at_its_end_knows_its_last_validation():
    measures, resumed = Measures(), Measures()
    module, run = Measuring(), trainer(measures)
    run.fit(module, DATA, DATA)
    resumed.load_state_dict(measures.state_dict())
    trainer(resumed).test(module, DATA, verbose=False)
    assert resumed.results == {"val/found": 0.25, "test/found": 0.75}


def test_without_a_validation_or_a_folder_the_test_is_kept_alone():
    measures = Measures()
    trainer(measures).test(Measuring(), DATA, verbose=False)
    assert measures.results == {"test/found": 0.75}
    assert measures.state_dict() == {}
