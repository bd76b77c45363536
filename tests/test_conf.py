"""Every choice in `conf` and `experiments` is composed, checked, built and tried: none is listed here."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from deblur_lab import experiments
from deblur_lab.checks import OWN_SETTINGS, command_faults
from deblur_lab.command_line import as_typed
from deblur_lab.config import build, configuration_root, faults, plain
from deblur_lab.data.synthesize import Settings, layout_of, synthesize
from deblur_lab.data.writers import LAYOUTS
from deblur_lab.stages import stages_of

ROOT = configuration_root()
CONF = ROOT / "conf"
COMMANDS = sorted(path.stem for path in CONF.glob("[!_]*.yaml"))
EXPERIMENTS = sorted(
    str(path.relative_to(ROOT / "experiments").with_suffix(""))
    for path in (ROOT / "experiments").rglob("*.yaml")
)
PATCH_PX = 32


def trainings(config: DictConfig) -> list[DictConfig]:
    """The stages of a training, or it alone."""
    return [stage.config for stage in stages_of(config)] if config.stages else [config]


def choices(group: str) -> list[str]:
    """What a group offers."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def _experiments_are_found() -> None:
    experiments.register()


def composed(command: str, *typed: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, [as_typed(argument) for argument in typed])


def with_roots(config: DictConfig, folder: str = "somewhere") -> DictConfig:
    """The same with every folder of data that it needs."""
    if OmegaConf.is_missing(config.get("data", {}), "root"):
        config.data.root = folder
    return config


def small(node: Any, key: str = "") -> Any:
    """A network's settings with one block and few channels wherever it has many."""
    if isinstance(node, dict):
        return {name: small(value, name) for name, value in node.items()}
    if key.endswith("width"):
        return 24 if node % 24 == 0 else 8  # the least that the net can share among its heads and groups
    if key == "kernel_size_px":
        return 7
    if "blocks" in key:
        return [1] * len(node) if isinstance(node, list) else min(node, 1)
    return node


@pytest.mark.parametrize("data", choices("data"))
@pytest.mark.parametrize("model", choices("model"))
def test_every_model_with_every_dataset_has_no_fault(model, data):
    for config in trainings(with_roots(composed("train", f"model={model}", f"data={data}"))):
        assert faults(config) == []


@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in ("trainer", "logger") for name in choices(group)]
)
def test_every_trainer_and_logger_has_no_fault(choice):
    assert faults(composed("train", choice, "output=runs/x")) == []


@pytest.mark.parametrize("data", choices("data"))
def test_every_dataset_can_be_evaluated_on(data):
    config = with_roots(composed("evaluate", f"data={data}", "checkpoint=last.ckpt"))
    assert faults(config) == []
    assert plain(config)["checkpoint"] == "last.ckpt"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_no_fault_and_takes_a_step(experiment):
    for config in trainings(with_roots(composed("train", f"experiment={experiment}"))):
        assert faults(config) == []
        take_a_step(config)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_of_a_command_has_a_kind_that_its_default_is_of(command):
    needed = {
        "predict": ["checkpoint=x", "input=y", "output=z"],
        "demo": ["checkpoint=x"],
        "evaluate": ["checkpoint=x"],
        "export": ["checkpoint=x"],
        "data.from_video": ["input=y", "output=z"],
        "data.prepare": ["data.root=x"],
        "data.verify": ["data.root=x"],
    }
    config = composed(command, *needed.get(command, []))
    assert command_faults(command, config) == []
    groups = {"data", "datamodule", "logger", "model", "protocol", "trainer"}
    assert set(OWN_SETTINGS[command]) == {str(key) for key in config} - groups


def test_there_are_experiments():
    assert "demo" in EXPERIMENTS


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_takes_a_step(model):
    for config in trainings(composed("train", f"model={model}")):
        take_a_step(config)


def take_a_step(config: DictConfig) -> None:
    """Build the model of a configuration, made small, and move its weights once by a made-up batch."""
    torch.manual_seed(0)
    task = build(small(plain(config)["model"]), key="model")
    rng = torch.Generator().manual_seed(0)
    blurry = torch.rand(2, 3, PATCH_PX, PATCH_PX, generator=rng)
    batch = {
        "blurry": blurry,
        "sharp": (blurry + 0.1 * torch.randn(blurry.shape, generator=rng)).clamp(0, 1),
        "mask": torch.rand(2, 1, PATCH_PX, PATCH_PX, generator=rng).round(),
        "mask_known": torch.tensor([True, False]),
        "seed": torch.tensor([1, 2]),
        "name": ["a", "b"],
    }
    if not task.restores:  # what learns of motion kernels takes these
        side_px = getattr(task.net, "kernel_size_px", 3)
        kernels = torch.rand(2, side_px**2, generator=rng)
        batch["kernel"] = kernels / kernels.sum(1, keepdim=True)
    made = task.configure_optimizers()
    before = {name: parameter.detach().clone() for name, parameter in task.net.named_parameters()}
    loss, parts = task.train().losses(batch)
    assert all(part.ndim == 0 and part.isfinite() for part in parts.values())
    loss.backward()
    # A parameter without a gradient would also stop training on several devices.
    trained = {name: parameter for name, parameter in task.net.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in trained.values())
    made["optimizer"].step()
    made["lr_scheduler"]["scheduler"].step()
    changed = {n for n, parameter in task.net.named_parameters() if not torch.equal(before[n], parameter)}
    assert changed
    assert changed <= trained.keys()
    if not task.restores:
        return
    restored = task.net.eval()(batch["blurry"][:, :, :29, :23])
    assert restored.shape == (2, 3, 29, 23)


@pytest.mark.parametrize("data", choices("data"))
def test_every_dataset_is_built_and_drawn_from(data, tmp_path):
    config = composed("train", f"data={data}", f"data.patch_size={PATCH_PX}", "data.num_workers=0")
    config.data.batch_size = 4
    for key in [key for key in config.data if key == "root" or key.endswith("_root")]:
        name = data if key == "root" else key.removesuffix("_root")
        written = [name for name, variants in LAYOUTS.items() if next(iter(variants.values())).data == name]
        if name in written:
            settings = Settings(
                tmp_path / name, name, train_scenes=4, test_scenes=2, size_px=(48, 40), num_workers=0
            )
            synthesize(settings)
            config.data[key] = str(tmp_path / name / layout_of(settings).root)
    for source in config.data.sources:
        for key in ("train_scenes", "val_scenes", "test_scenes", "size_px"):
            if key in source:
                source[key] = 40 if key == "size_px" else 2
    datamodule = build(plain(config)["datamodule"], key="datamodule")
    datamodule.trainer = SimpleNamespace(
        world_size=1, global_rank=0, accumulate_grad_batches=1, max_steps=2, global_step=0
    )
    datamodule.setup("fit")
    batches = list(datamodule.train_dataloader())
    assert len(batches) == 2
    for batch in batches:
        for key, channels in (("blurry", 3), ("sharp", 3), ("mask", 1)):
            assert batch[key].shape == (4, channels, PATCH_PX, PATCH_PX)
            assert 0 <= batch[key].min() <= batch[key].max() <= 1
    for source, loader in zip(datamodule.sources, datamodule.test_dataloader(), strict=True):
        pictures = list(loader)
        assert len(pictures) == 2
        scores = source.protocol.score(pictures[0]["blurry"], pictures[0]["sharp"], pictures[0]["mask"])
        assert 5 < scores["psnr_db"] <= 100


def test_the_recipe_of_m2aenet_is_that_of_its_section_4_2():
    config = plain(composed("train", "model=m2aenet", "data=gopro_reloblur", "data.root=x"))
    net, loss = config["model"]["net"], config["model"]["loss"]
    assert (net["width"], net["encoder_blocks"], net["middle_blocks"], net["decoder_blocks"]) == (
        32,
        [1, 1, 1, 28],
        1,
        [1, 1, 1, 1],
    )
    assert config["model"]["optimizer"] == {
        "_target_": "torch.optim.AdamW",
        "_partial_": True,
        "lr": 1e-3,
        "betas": [0.9, 0.9],
        "weight_decay": 1e-3,
    }
    assert (config["data"]["batch_size"], config["data"]["patch_size"]) == (8, 256)
    assert (config["data"]["blur_crop_probability"], config["data"]["blur_crop_share"]) == (0.5, 0.05)
    assert [source["_target_"] for source in config["data"]["sources"]] == [
        "deblur_lab.data.ReLoBlur",
        "deblur_lab.data.GoPro",
    ]
    # gamma, lambda and N2 of equations 7 to 11.
    assert (loss["fft"], loss["mask"], loss["reblur_instants"]) == (0.1, 0.01, 9)
    assert (loss["l1"], loss["ssim"], loss["reblur"]) == (1, 1, 1)
    assert config["model"]["ema_decay"] is None
    assert config["trainer"]["gradient_clip_val"] is None
    assert config["trainer"]["precision"] == "32-true"


def test_the_learning_rate_of_m2aenet_falls_from_1e_3_to_1e_6_by_a_cosine():
    config = plain(composed("train", "model=m2aenet", "trainer.max_steps=10"))
    task = build(small(config["model"]), key="model")
    made = task.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(10):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert rates[0] == pytest.approx(1e-3)
    assert rates[5] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates[10] == pytest.approx(1e-6)
