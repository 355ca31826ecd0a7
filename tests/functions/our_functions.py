"""Functions as a user of `python_callable` would write them, good and bad.

Most do what their task's input asks for, so that one executor sees it all.
"""

import asyncio
import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from domain.errors import ExecutorCrashed, ExecutorUnavailable, InvalidInput, UpstreamRejected
from domain.inference import InferenceResult, Usage

MEBIBYTE = 1024 * 1024


# --- good ones, that keep to the contract of executors ---------------------------------------


def shout(value, options):
    if value == "on and on":
        time.sleep(60)
    if value == "broken":
        raise RuntimeError("broken as asked")
    return value.upper()


def spell(value, options, context):
    for letter in value:
        if value == "on and on":
            time.sleep(60)
        if letter == "?":
            raise RuntimeError("broken as asked")
        yield letter.upper()


async def shout_later(value, options):
    await asyncio.sleep(60 if value == "on and on" else 0.01)
    if value == "broken":
        raise RuntimeError("broken as asked")
    return value.upper()


async def spell_later(value, options, context):
    for letter in value:
        await asyncio.sleep(60 if value == "on and on" else 0)
        if letter == "?":
            raise RuntimeError("broken as asked")
        yield letter.upper()


# --- what a function may be, take and give ----------------------------------------------------


class Shouter:
    def __call__(self, value, options):
        return f"{value.upper()}{options['mark']}"


class LaterShouter:
    async def __call__(self, value, options):
        return f"{value.upper()} in {os.getpid()}"


shouter = Shouter()
later_shouter = LaterShouter()


def give_back(value, options):
    """The value, as Python would have it: what JSON has no word for is asked for by name."""
    strange = {"nan": float("nan"), "surrogate": "\ud800", "object": object(), "huge": 2**64}
    return strange.get(value, value) if isinstance(value, str) else value


def with_usage(value, options):
    return InferenceResult(value, Usage(1, 2, 3), {"model": "mine"})


def tell_all(value, options, context):
    context.progress(0.25)
    context.log("a quarter")
    print("not for the log of the service")
    return [context.task_id, context.attempt, context.model, context.loaded]


async def tell_all_later(value, options, context):
    return tell_all(value, options, context)


async def tell_from_a_thread(value, options, context):
    threading.Timer(0.2, context.log, ["from a thread"]).start()
    await asyncio.sleep(60)


def tell_all_or_die(value, options, context):
    if value == "die":
        os._exit(1)
    return tell_all(value, options, context)


def yield_and_return(value, options):
    yield "pieces"
    return {"in the end": value}


def yield_something_else(value, options):
    yield 1


async def yield_something_else_later(value, options):
    yield 1


def raise_by_name(value, options):
    raise {
        "ValueError": ValueError("x" * 5_000),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "InvalidInput": InvalidInput("no text in it"),
        "UpstreamRejected": UpstreamRejected("no", retryable=True),
        "ExecutorUnavailable": ExecutorUnavailable("busy", retry_after_seconds=7),
        "ExecutorCrashed": ExecutorCrashed("it is a lie"),
        "its text": Unspeakable(),
        "surrogate": ValueError("\ud800"),
    }[value]


async def raise_by_name_later(value, options):
    if value == "CancelledError":
        raise asyncio.CancelledError
    raise_by_name(value, options)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("this error cannot even say what it is")


# --- of a process ----------------------------------------------------------------------------

loads: list[int] = []


def load():
    loads.append(os.getpid())
    return f"loaded {len(loads)} times"


async def load_later():
    await asyncio.sleep(0)
    return "loaded later"


def load_never():
    raise RuntimeError("no GPU")


def load_and_die():
    os._exit(7)


def load_once_allowed():
    """Fails until the file that the environment names is there."""
    if not Path(os.environ["ALLOWED"]).exists():
        raise RuntimeError("not yet")


def where(value, options):
    return os.getpid()


async def where_later(value, options):
    return os.getpid()


def score_of_memory_killer(value, options):
    return Path("/proc/self/oom_score_adj").read_text().strip()


def loop_or_tell_where(value, options):
    while value == "loop":
        pass
    return os.getpid()


def start_another(value, options, context):
    """A process of a child's own, which would stay for a minute; then do as `value` says."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    context.log(f"{os.getpid()} {other.pid}")
    if value == "die":
        os._exit(1)
    time.sleep(60)


def fork(value, options):
    os.fork()
    return os.getpid()


def close_all(value, options):
    os.closerange(3, 100)


def listen_to_the_flag(value, options, context):
    """Stops when told to, and leaves a file as a sign that it heard."""
    context.log("begun")
    while not context.cancelled:
        time.sleep(0.01)
    Path(value).write_text(str(os.getpid()))


def pieces_of_a_mebibyte(value, options):
    while True:
        yield "x" * MEBIBYTE


def pieces_for_ever(value, options):
    while True:
        yield "again "


def speak_for_ever(value, options, context):
    while True:
        context.log(value * 10_000)


# --- and the bad ones ------------------------------------------------------------------------


def misbehave(value, options):
    """Do the harm that the input names; anything else is echoed."""
    match value:
        case "exit":
            os._exit(3)
        case "loop":
            while True:
                pass
        case "memory":
            return len([bytearray(64 * MEBIBYTE) for _ in range(128)])  # 8 GiB
        case "segfault":
            ctypes.string_at(0)
        case "prints":
            for _ in range(200):
                print("x" * MEBIBYTE)
        case "sleep":
            time.sleep(options.get("seconds", 1))
        case "hold the GIL":
            hold_the_gil(options["seconds"])
    return f"good: {value}"


def hold_the_gil(seconds):
    """One call into C, which gives nothing else in its process a turn."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ctypes.PyDLL(None).usleep(500_000)
        re.match(r"(a+)+b", "a" * 22)  # and burn time, too


def too_few(value):
    """It cannot be called with what an executor gives, and so can be no target."""
    return value
