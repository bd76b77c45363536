import pytest

from deblur_lab.models import M2AENet

from .made_up import SMALL, made_up


@pytest.fixture
def small() -> M2AENet:
    return made_up(*SMALL, predictor_stages=[2])
