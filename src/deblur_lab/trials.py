"""Where the trials of a search run: in this process, in processes of their own, or on a cluster."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from deblur_lab.cluster import Cluster, Job, executor_of
from deblur_lab.run_folders import has_saved
from deblur_lab.search import Asked, Runner
from deblur_lab.sweeps import needs_processes, run_alone, say


def runner(
    command: str, config: DictConfig, fixed: Sequence[str], folder: Path, here: Callable[[Sequence[str]], int]
) -> Runner:
    """What runs the trials of a search.

    Args:
        command: the name of its file in ``conf``.
        config: of any trial, composed, with what Hydra keeps in it.
        fixed: the settings that all trials have, as they are typed.
        folder: of the search.
        here: runs what is typed in this process, and tells its exit code.
    """

    def on_this_machine(trials: Sequence[Asked]) -> Iterator[tuple[int, int]]:
        for trial in trials:
            key = "resume" if has_saved(trial.folder) else "output"
            arguments = [*fixed, *trial.settings, f"{key}={trial.folder}"]
            if not needs_processes(config):
                yield trial.number, here(arguments)
                continue
            try:
                yield trial.number, run_alone(command, arguments).exit_code
            except SystemExit as stopped:
                yield trial.number, stopped.code if isinstance(stopped.code, int) else 1

    def on_a_cluster(trials: Sequence[Asked]) -> Iterator[tuple[int, int]]:
        jobs = [Job(trial.number, (*fixed, *trial.settings), trial.folder, config) for trial in trials]
        assert executor is not None
        cluster = Cluster(executor, folder, say)
        for number, code in cluster.run(jobs):
            if code:
                say(cluster.last_line(number))
            yield number, code

    executor = executor_of(config)
    return on_this_machine if executor is None else on_a_cluster
