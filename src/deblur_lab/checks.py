"""Every fault in a command's composed configuration, found before anything is built."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deblur_lab import budgets
from deblur_lab.budgets import BUDGET
from deblur_lab.composition import unknown_setting
from deblur_lab.config import build, configuration_root, faults, own_faults, references, resolved
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.kinds import shown
from deblur_lab.ranges import Count, Natural, Positive, Range, Seconds, Seed, Share, Weight
from deblur_lab.stages import STAGES, shape_faults, stages_of

# What each command's own settings must be; those of the classes that it builds stand in their signatures.
OWN_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "train": {
        "seed": Seed,
        "output": str | None,
        "resume": str | None,
        "init_from": str | None,
        "val_every_steps": Count,
        "checkpoint_every_steps": Count,
        "budget": Any,  # a number by kind, looked at in `budgets.shape_faults`
        "stages": Any,  # settings by name, looked at in `deblur_lab.stages`
        "evaluate": bool,
        "pictures": Natural,
        "trusted_packages": list[str],
    },
    "evaluate": {
        "checkpoint": str | None,
        "input": str | None,
        "subset": bool,
        "output": str | None,
        "seed": Seed,
        "pictures": Natural,
        "metrics": Literal["protocol", "all"],
        "tlc": Literal["auto", "on", "off", True, False],
        "tlc_size_px": Count | None,
        "threshold": Share | list[Share] | None,
        "pruning": Literal["auto", "dense", "pruned"] | None,
        "trusted_packages": list[str],
    },
    "predict": {
        "checkpoint": str,
        "input": str,
        "output": str,
        "format": Literal["auto", "png", "jpeg"],
        "jpeg_quality": Annotated[int, Range(1, 100)],
        "max_pixels": Count,
        "tile_px": Count,
        "overlap_px": Natural,
        "tlc": Literal["on", "off", True, False],
        "tlc_size_px": Count | None,
        "explain": bool,
        "threshold": Share | None,
        "pruning": Literal["auto", "dense", "pruned"] | None,
        "device": str,
        "trusted_packages": list[str],
    },
    "profile": {
        "checkpoint": str | None,
        "size": Any,  # text, looked at in `picture_size_px`
        "blurred": Share,
        "device": str,
        "precision": Literal["32-true", "bf16-mixed"],
        "repeats": Count | None,
        "seed": Seed,
        "output": str | None,
        "trusted_packages": list[str],
        "stages": Any,  # of a model's recipe, which nothing here reads
    },
    "report": {"runs": str, "output": str | None, "pictures": Natural},
    "export": {
        "checkpoint": str,
        "output": str | None,
        "format": Literal["onnx", "torch_export"],
        "opset": Annotated[int, Range(18)],
        "trusted_packages": list[str],
    },
    "demo": {
        "checkpoint": str,
        "host": str,
        "port": Annotated[int, Range(0, 65535)] | None,
        "max_pixels": Count,
        "max_megabytes": Positive,
        "open_browser": bool,
        "device": str,
        "trusted_packages": list[str],
    },
    "data.verify": {
        "output": str | None,
        "expected": Literal["published", "test", "any"],
        "workers": Count | None,
        "seed": Seed,
        "trusted_packages": list[str],
    },
    "data.prepare": {
        "output": str | None,
        "workers": Count | None,
        "seed": Seed,
        "trusted_packages": list[str],
    },
    "data.from_video": {
        "input": str,
        "output": str,
        "frames": Annotated[int, Range(3)] | list[Annotated[int, Range(3)]],
        "stride": Count | None,
        "averages": Literal["blur", "blur_gamma", "both"],
        "gamma": Positive | Literal["srgb"],
        "size": Any,  # text, looked at in `picture_size_px`
        "start_s": Seconds,
        "end_s": Positive | None,
        "min_motion_px": Weight,
        "max_motion_px": Positive | None,
        "max_step_px": Positive | None,
        "max_pairs": Count | None,
        "test_share": Share,
        "gap_s": Seconds,
        "seed": Seed,
    },
}
_LARGEST_SIDE_PX = 65535
# What is chosen from conf/, or made of that.
_GROUPS = ("model", "data", "datamodule", "protocol", "trainer", "logger")
# Arguments of Lightning's trainer that the commands set, and the setting to give in their place.
_SET_BY_US: Mapping[str, str] = {
    "accumulate_grad_batches": "data.micro_batch_size",
    "barebones": "",
    "callbacks": "",
    "check_val_every_n_epoch": "val_every_steps",
    "default_root_dir": "output",
    "enable_checkpointing": "checkpoint_every_steps",
    "enable_model_summary": "",
    "fast_dev_run": "trainer.max_steps",
    # A training is one epoch, counted in steps, whose samples follow from the step.
    "limit_predict_batches": "",
    "limit_test_batches": "",
    "limit_train_batches": "trainer.max_steps",
    "limit_val_batches": "",
    "logger": "logger",
    "max_epochs": "trainer.max_steps",
    "max_time": "trainer.max_steps",
    "min_epochs": "trainer.max_steps",
    "min_steps": "trainer.max_steps",
    "num_sanity_val_steps": "",
    "overfit_batches": "data.sources",
    "plugins": "",
    "reload_dataloaders_every_n_epochs": "",
    "use_distributed_sampler": "",
    "val_check_interval": "val_every_steps",
}


def command_faults(command: str, config: DictConfig) -> list[str]:
    """Every fault in a command's configuration, one line each, which begins with the key that is at fault.

    What is missing or refers to nothing, settings that nothing reads, values of a wrong type or out of range,
    classes that may not be built, arguments that these do not take or lack, and settings that do not fit each
    other.

    Args:
        command: the name of its file in ``conf``.
        config: composed; what Hydra keeps in it is not looked at.
    """
    dataset = OmegaConf.select(config, "hydra.runtime.choices.data")
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    read = references(config)
    if STAGES not in config or not config[STAGES]:
        return _faults(command, config, dataset, read)
    if command == "train":
        # What the whole sets need not be enough for a training: each stage's must.
        return shape_faults(config) or list(
            dict.fromkeys(
                stage.placed(fault)
                for stage in stages_of(config)
                for fault in _faults(command, stage.config, dataset, read)
            )
        )
    OmegaConf.set_struct(config, False)
    config[STAGES] = {}
    return _faults(command, config, dataset, read)


def _faults(command: str, config: DictConfig, dataset: str | None, read: Collection[str]) -> list[str]:
    """The same of one training, or of another command.

    Args:
        command: as in `command_faults`.
        config: without what Hydra keeps in it.
        dataset: which of ``conf/data`` was chosen, if that is known.
        read: the keys that something refers to.
    """
    there = [str(key) for key in config]  # be it set or not
    missing = [key for key in _own_keys(command) if key not in there]
    if missing:
        # What was taken away is missed everywhere: that alone is worth telling.
        return [f"{key} was taken away, but is needed: leave ~{key} out" for key in missing]
    settings, unresolved = resolved(config)
    found = [
        *unresolved,
        *_unread(command, config, dataset, read),
        *own_faults(settings, OWN_SETTINGS[command]),
    ]
    trusted = settings.get("trusted_packages", [])
    is_list = isinstance(trusted, list) and all(isinstance(name, str) for name in trusted)
    found += faults(config, trusted if is_list else [])
    groups = [key for key in _GROUPS if key in settings]
    shapeless = [key for key in groups if not isinstance(settings[key], Mapping)]
    found += [
        f"{key}={shown(settings[key])}: settings are expected, as those of conf/{key}" for key in shapeless
    ]
    found += [
        f"{key}._target_ is not set: the class to build is expected"
        for key in groups
        if key not in (*shapeless, "data", "logger") and "_target_" not in settings[key]
        # Of a recipe's trainer, a profile needs no more than what the rest of the recipe refers to; of its
        # model, the net.
        if (command, key) != ("profile", "trainer")
        if (command, key) != ("profile", "model") or "net" not in settings[key]
        if key != "protocol" or settings[key]  # nothing at all is the dataset's own
    ]
    if command in _FITTING and not shapeless:
        found += _FITTING[command](settings)
    if command == "train" and not found:
        found += _refused_by_constructors(settings)
    # Of two that ask something of one value, the first says enough.
    of_values = {line.partition(": ")[0]: line for line in reversed(found)}
    return list(dict.fromkeys(of_values.get(line.partition(": ")[0], line) for line in found))


def budgeted_faults(command: str, config: DictConfig, settings: Sequence[str]) -> list[str]:
    """The same as `command_faults`, once a training is as long as its budget says.

    Args:
        command: the name of its file in ``conf``.
        config: composed; its training and stages are given their steps.
        settings: of the run, as they are typed or swept over.
    """
    if command != "train" or not OmegaConf.is_dict(config.get(BUDGET)) or budgets.asked(config) is None:
        return command_faults(command, config)
    if OmegaConf.is_dict(config.get(STAGES)) and shape_faults(config):
        return shape_faults(config)
    found = budgets.typed_faults(config, settings)
    try:
        budgets.apply(config, settings)
    except (ConfigurationError, OmegaConfBaseException, ArithmeticError, AttributeError, TypeError) as error:
        # Where other settings are at fault, they are to blame for this as well.
        return found + (command_faults(command, config) or [str(error)])
    return found or command_faults(command, config)


def require_device(trainer: Mapping[str, Any]) -> None:
    """Refuse a trainer's settings that this machine cannot meet.

    Raises:
        MachineError: there is no such device, or there are too few.
    """
    import torch

    accelerator, devices = trainer["accelerator"], trainer["devices"]
    if trainer.get("precision") == "16-mixed" and (accelerator == "cpu" or not torch.cuda.is_available()):
        # Lightning would take bfloat16 in its place, and the scores would be said to be of half precision.
        raise MachineError("trainer.precision=16-mixed needs a GPU of CUDA: choose bf16-mixed or 32-true")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise MachineError("trainer.accelerator=mps: there is none here: choose trainer=auto or trainer=cpu")
    if accelerator not in ("gpu", "cuda") or torch.backends.mps.is_available():
        return
    there = torch.cuda.device_count()
    if there == 0:
        raise MachineError(
            f"trainer.accelerator={accelerator}: PyTorch sees no GPU here: choose trainer=auto or trainer=cpu"
        )
    wanted = devices if isinstance(devices, int) else max(devices, default=-1) + 1
    if isinstance(wanted, int) and wanted > there:
        raise MachineError(f"trainer.devices={devices}: PyTorch sees {there} GPU(s) here: choose no more")


def _own_keys(command: str) -> list[str]:
    """The settings at the top of a command's configuration, groups of them included."""
    written = OmegaConf.load(configuration_root() / "conf" / f"{command}.yaml")
    assert isinstance(written, DictConfig)
    groups = [str(key) for choice in written.defaults if isinstance(choice, DictConfig) for key in choice]
    keys = [key for key in groups if " " not in key and key != "experiment"]
    return [*keys, *(str(key) for key in written if key not in ("defaults", "hydra"))]


def _unread(command: str, config: DictConfig, dataset: str | None, read: Collection[str]) -> list[str]:
    """Settings that nothing reads: misspelt ones in a YAML of one's own, or after a +.

    Args:
        command: the name of its file in ``conf``.
        config: composed.
        dataset: which of ``conf/data`` was chosen, if that is known; what it sets need not be referred to.
        read: what something refers to.
    """
    # What was chosen stands in the configuration of a run, so that its scores can say it.
    listed = command == "train" and OmegaConf.is_list(config.get("experiment"))
    own = [*_own_keys(command), *(["experiment"] if listed else [])]
    known = config.copy()
    strange = [str(key) for key in config if key not in own]
    if OmegaConf.is_dict(config.get("data")):
        conf = configuration_root() / "conf"
        files = [conf / "_data.yaml", *(conf / "data").glob(f"{dataset or '*'}.yaml")]
        of_data = {str(key) for path in files for key in cast(DictConfig, OmegaConf.load(path))}
        unset = [key for key in config.data if OmegaConf.is_missing(config.data, key)]
        strange += [f"data.{key}" for key in config.data if key not in of_data and key not in unset]
    strange = [key for key in strange if not any(f"{name}.".startswith(f"{key}.") for name in read)]
    # Nor are they proposed.
    for key in strange:
        parent, _, name = key.rpartition(".")
        OmegaConf.set_struct(known, False)
        del (OmegaConf.select(known, parent) if parent else known)[name]
    return [unknown_setting(key, known) for key in strange]


def _train_fits(settings: Mapping[str, Any]) -> list[str]:
    found = _set_by_us(settings)
    data, trainer = settings["data"], settings["trainer"]
    batch, micro = data.get("batch_size"), data.get("micro_batch_size")
    processes = [trainer.get(key) for key in ("devices", "num_nodes")]
    # What is wrong by itself is told already.
    if all(_is_count(number) for number in (batch, *processes)) and (micro is None or _is_count(micro)):
        from deblur_lab.data import plan_batches

        try:
            plan_batches(batch, micro, processes[0] * processes[1])
        except ConfigurationError as error:
            found.append(str(error))
    return found + budgets.shape_faults(settings["budget"]) + _no_loggers(settings)


def _refused_by_constructors(settings: Mapping[str, Any]) -> list[str]:
    """What the classes say of arguments that are right one by one, but do not fit each other.

    The network is made without memory for its weights, and nothing is read.
    """
    import torch

    trusted = tuple(settings["trusted_packages"])
    found = []

    def model() -> None:
        task = build(settings["model"], trusted, key="model")
        task.check_patch(settings["data"]["patch_size"], settings["data"]["patch_size"])
        task.check_start(settings["init_from"])
        task.configure_optimizers()

    def datamodule() -> None:
        build(settings["datamodule"], trusted, key="datamodule")

    for construct in (model, datamodule):
        try:
            with torch.device("meta"):
                construct()
        except ConfigurationError as error:
            found.append(str(error))
        except (
            Exception
        ):  # a class of somebody's own that needs real weights; if it is wrong, it is met again
            continue
    return found


def _evaluate_fits(settings: Mapping[str, Any]) -> list[str]:
    found = _set_by_us(settings)
    restored = settings["input"]
    if settings["checkpoint"] is None and restored is None:
        found.append(
            "checkpoint is not set: give it on the command line, as checkpoint=...; or a folder of pictures "
            "that another program restored, as input=..."
        )
    elif settings["checkpoint"] is not None and restored is not None:
        found.append(
            f"checkpoint={settings['checkpoint']}, input={restored}: either weights are scored, or pictures "
            "that are restored already: leave one out"
        )
    if restored is None and settings["subset"] is True:
        found.append("subset=true has no effect without input=: leave it out")
    if restored is not None:
        # They are settings of a network, and none is known of.
        unused = {"tlc": "auto", "tlc_size_px": None, "threshold": None, "pruning": None}
        found += [
            f"{key}={shown(settings[key])} has no effect with input=: leave it out"
            for key, default in unused.items()
            if settings[key] != default
        ]
    if settings["tlc"] in ("off", False) and settings["tlc_size_px"] is not None:
        found.append(f"tlc_size_px={settings['tlc_size_px']} has no effect with tlc=off: leave one out")
    threshold = settings["threshold"]
    if isinstance(threshold, list) and len(set(map(str, threshold))) < max(1, len(threshold)):
        found.append(f"threshold={threshold}: one or more probabilities are expected, each once")
    return found + _no_loggers(settings)


def _predict_fits(settings: Mapping[str, Any]) -> list[str]:
    found = []
    tile_px, overlap_px = settings["tile_px"], settings["overlap_px"]
    if _is_count(tile_px) and _is_count(overlap_px) and tile_px <= 2 * overlap_px:
        found.append(
            f"tile_px={tile_px}, overlap_px={overlap_px}: tiles of over twice the overlap are expected"
        )
    if settings["tlc"] in ("off", False) and settings["tlc_size_px"] is not None:
        found.append(f"tlc_size_px={settings['tlc_size_px']} has no effect with tlc=off: leave one out")
    if settings["format"] == "png" and settings["jpeg_quality"] != 95:
        found.append(f"jpeg_quality={settings['jpeg_quality']} has no effect with format=png: leave one out")
    return found


def picture_size_px(size: Any) -> tuple[int, int]:  # noqa: ANN401 - as typed
    """Width and height that ``size=2152x1436`` stands for.

    Raises:
        ConfigurationError: it is no such size.
    """
    sides = str(size).lower().split("x")
    if len(sides) == 2 and all(side.isascii() and side.isdecimal() for side in sides):
        width_px, height_px = map(int, sides)
        if min(width_px, height_px) >= 1 and max(width_px, height_px) <= _LARGEST_SIDE_PX:
            return width_px, height_px
    raise ConfigurationError(
        f"size={shown(size)}: WIDTHxHEIGHT in pixels is expected, each from 1 to {_LARGEST_SIDE_PX}, as "
        "size=2152x1436"
    )


def _profile_fits(settings: Mapping[str, Any]) -> list[str]:
    try:
        picture_size_px(settings["size"])
    except ConfigurationError as error:
        return [str(error)]
    return []


def _from_video_fits(settings: Mapping[str, Any]) -> list[str]:
    found = []
    counts = settings["frames"] if isinstance(settings["frames"], list) else [settings["frames"]]
    if not counts or any(_is_count(count) and count % 2 == 0 for count in counts):
        found.append(
            f"frames={settings['frames']}: odd numbers are expected, so that one frame is the middle"
        )
    if settings["size"] is not None:
        found += _profile_fits(settings)
    for low, high in (("start_s", "end_s"), ("min_motion_px", "max_motion_px")):
        if settings[high] is not None and not _is_below(settings[low], settings[high]):
            found.append(f"{high}={settings[high]}: more than {low}={settings[low]} is expected")
    if settings["averages"] == "blur" and settings["gamma"] != 2.2:
        found.append(f"gamma={settings['gamma']} has no effect with averages=blur: leave one out")
    return found


def _no_loggers(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"logger.{name}: a logger is expected, with _target_: choose logger=csv, tensorboard, ..."
        for name, node in settings["logger"].items()
        if not isinstance(node, Mapping) or "_target_" not in node
    ]


_FITTING: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "report": _no_loggers,
    "train": _train_fits,
    "evaluate": _evaluate_fits,
    "predict": _predict_fits,
    "profile": _profile_fits,
    "data.from_video": _from_video_fits,
}


def _set_by_us(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"trainer.{key} is set by the command: {f'give {instead}=' if instead else 'leave it out'}"
        for key, instead in _SET_BY_US.items()
        if key in settings["trainer"]
    ]


def _is_below(low: Any, high: Any) -> bool:  # noqa: ANN401 - any plain values
    """True as well of what is no number, which is told elsewhere."""
    numbers = all(isinstance(value, int | float) for value in (low, high))
    return not numbers or low < high


def _is_count(value: Any) -> bool:  # noqa: ANN401 - any plain value
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
