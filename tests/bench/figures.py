"""All figures, in the order of the table."""

from typing import Final

from bench import Figure
from claims import CLAIM
from footprint import FSYNCS, RESIDENT, START
from latency import IDLE, PACED, WAKE_UP
from throughput import DRAIN, GET, KEPT, SUBMIT, SUBMIT_AND_RUN
from workers import WORKERS

FIGURES: Final[tuple[Figure, ...]] = (
    SUBMIT,
    SUBMIT_AND_RUN,
    GET,
    DRAIN,
    WORKERS,
    KEPT,
    RESIDENT,
    IDLE,
    WAKE_UP,
    PACED,
    START,
    FSYNCS,
    CLAIM,
)
