"""Training runs as they lie on this machine's disk: where they are, and how far each one is. Torch-free.

A run's folder is read while another process writes it, so what is half-written is passed over.
"""

from vitmae_search.training_runs.registry import remember_run, trained_runs
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
    "read_training_run",
    "remember_run",
    "trained_runs",
]
