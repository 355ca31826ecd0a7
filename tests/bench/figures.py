"""All figures, in the order of the table."""

from typing import Final

from bench import Figure
from claims import CLAIM
from executors import EXECUTORS
from footprint import FSYNCS, RESIDENT, START
from latency import IDLE, PACED, WAKE_UP
from streams import EVENTS, FIRST_OUTPUT
from throughput import BATCH, DRAIN, GET, KEPT, KEYED, LIST, PROMPT, SUBMIT, SUBMIT_AND_RUN
from waits import LONG_POLL, WAITERS
from workers import WORKERS

FIGURES: Final[tuple[Figure, ...]] = (
    SUBMIT,
    PROMPT,
    SUBMIT_AND_RUN,
    KEYED,
    BATCH,
    GET,
    DRAIN,
    EXECUTORS,
    WORKERS,
    KEPT,
    LIST,
    RESIDENT,
    IDLE,
    WAKE_UP,
    PACED,
    LONG_POLL,
    WAITERS,
    FIRST_OUTPUT,
    EVENTS,
    START,
    FSYNCS,
    CLAIM,
)
