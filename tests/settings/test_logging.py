"""Log lines of a real process: one JSON object each, nothing lost at exit, nobody held up."""

import json
import os
import subprocess
import sys
import threading

import pytest

from entrypoints.logging import Lines

START = """
import logging, os, sys, warnings
import structlog
from entrypoints.logging import configure_logging, flush_logs
from settings.schema import LoggingSettings
configure_logging(LoggingSettings(level="info", format=sys.argv[1]))
log = structlog.get_logger()
"""


def logged(program, log_format="auto"):
    ended = subprocess.run(
        [sys.executable, "-c", START + program, log_format],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.stderr.splitlines()


def test_a_line_is_a_json_object_with_time_level_event_and_keys():
    [line] = logged("log.info('task_completed', task_id='t1', attempt=2)")
    fields = json.loads(line)
    assert fields.pop("timestamp").endswith("Z")
    expected = {"level": "info", "event": "task_completed", "task_id": "t1", "attempt": 2}
    assert fields == expected
    assert list(fields) == list(expected)


def test_what_is_bound_is_on_every_line():
    program = """
structlog.contextvars.bind_contextvars(request_id='r1')
log.info('one'); log.warning('two')
"""
    assert [json.loads(line)["request_id"] for line in logged(program)] == ["r1", "r1"]


def test_lines_below_the_level_are_not_written():
    assert logged("log.debug('detail')") == []


def test_a_burst_before_the_end_is_written_whole():
    lines = logged("for n in range(5000): log.info('burst', n=n)")
    assert [json.loads(line)["n"] for line in lines] == list(range(5000))


def test_an_error_brings_its_traceback_inside_its_line():
    program = """
try: 1 / 0
except ZeroDivisionError: log.exception('went_wrong')
"""
    [line] = logged(program)
    assert "ZeroDivisionError" in json.loads(line)["exception"]


@pytest.mark.parametrize(
    "value", ["'\\ud800'", "object()", "1 << 80", "{1: {2, 3}}", "float('nan')"]
)
def test_a_value_that_is_no_json_does_not_lose_the_line(value):
    [line] = logged(f"log.info('odd', value={value}, task_id='t1')")
    assert json.loads(line)["event"] == "odd"
    assert json.loads(line)["task_id"] == "t1"


def test_libraries_and_warnings_speak_the_same_way_from_warning_on():
    program = """
logging.getLogger('uvicorn.error').info('too quiet')
logging.getLogger('uvicorn.error').warning('took %s', 'long')
warnings.warn('old')
"""
    of_library, of_python = map(json.loads, logged(program))
    assert (of_library["logger"], of_library["event"]) == ("uvicorn.error", "took long")
    assert of_library["level"] == "warning"
    assert "old" in of_python["event"]


def test_console_lines_are_for_people_and_without_colours_off_a_terminal():
    [line] = logged("log.info('service_ready', url='http://x')", "console")
    assert "service_ready" in line
    assert "url=http://x" in line
    assert "\x1b" not in line


def test_nothing_is_lost_where_the_process_ends_at_once_after_a_flush():
    [line] = logged("log.info('last'); flush_logs(); os._exit(0)")
    assert json.loads(line)["event"] == "last"


def test_a_reader_that_stopped_holds_up_nobody_and_what_was_dropped_is_counted():
    reading, writing = os.pipe()
    lines = Lines(writing, most_waiting=100)
    written = threading.Event()

    def log_a_lot():
        for _ in range(20_000):
            lines.msg(b"x" * 99 + b"\n")
        written.set()

    threading.Thread(target=log_a_lot, daemon=True).start()
    assert written.wait(10)

    with os.fdopen(reading) as reader:
        dropped = next(line for line in reader if "log_lines_dropped" in line)
    assert json.loads(dropped)["count"] > 0
