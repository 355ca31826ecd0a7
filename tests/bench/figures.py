"""All figures, in the order of the table."""

from typing import Final

from bench import Figure
from claims import CLAIM
from footprint import FSYNCS, RESIDENT, START
from latency import IDLE, PACED
from throughput import DRAIN, GET, KEPT, SUBMIT, SUBMIT_AND_RUN

FIGURES: Final[tuple[Figure, ...]] = (
    SUBMIT,
    SUBMIT_AND_RUN,
    GET,
    DRAIN,
    KEPT,
    RESIDENT,
    IDLE,
    PACED,
    START,
    FSYNCS,
    CLAIM,
)
