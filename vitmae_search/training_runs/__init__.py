"""Training runs on this machine: where they are and how far each is, without importing torch."""

from vitmae_search.training_runs.film_strip import read_film_strip
from vitmae_search.training_runs.registry import list_training_runs, remember_run
from vitmae_search.training_runs.run import (
    LOCK_FILE,
    LOG_FILE,
    REPORT_FILE,
    RUN_FILE,
    TrainingRun,
    TrainingState,
    read_training_run,
)

__all__ = [
    "LOCK_FILE",
    "LOG_FILE",
    "REPORT_FILE",
    "RUN_FILE",
    "TrainingRun",
    "TrainingState",
    "list_training_runs",
    "read_film_strip",
    "read_training_run",
    "remember_run",
]
