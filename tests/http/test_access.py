"""Who is let in with which key, and how often."""

import hashlib

import pytest

from adapters.testing.fakes import FakeClock
from domain.service import Caller
from domain.task import ANONYMOUS
from entrypoints.http.access import Access, new_key
from entrypoints.http.errors import UNAUTHORIZED, Refusal
from settings.schema import ApiKey

PATH = "/api/v1/task"


def key_of(name, text, **more):
    return ApiKey(name=name, sha256=hashlib.sha256(text.encode()).hexdigest(), **more)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def access(clock):
    keys = [
        key_of("alice", "key-a"),
        key_of("bob", "key-b", requests_per_second=2),
        key_of("root", "key-r", admin=True),
        key_of("slow", "key-s", requests_per_second=0.01),
    ]
    return Access(keys, clock.monotonic)


def bearer(text):
    return {b"authorization": f"Bearer {text}".encode()}


@pytest.mark.parametrize(
    "headers",
    [
        bearer("key-a"),
        {b"authorization": b"bearer   key-a "},
        {b"x-api-key": b"key-a"},
        bearer("key-a") | {b"x-api-key": b"key-a"},
    ],
)
def test_a_key_is_taken_from_either_header(access, headers):
    assert access.caller(PATH, headers) == Caller("alice")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("key-"),
        bearer("key-aa"),
        bearer("key-A"),
        {b"authorization": b"key-a"},
        {b"authorization": b"Basic key-a"},
        {b"x-api-key": b""},
        {b"x-api-key": b"key-a, key-a"},
        bearer("key-a") | {b"x-api-key": b"key-b"},
        bearer("\xff"),
        bearer(hashlib.sha256(b"key-a").hexdigest()),
    ],
)
def test_no_key_a_wrong_one_and_two_that_differ_are_refused(access, headers):
    assert access.caller(PATH, headers) == UNAUTHORIZED


def test_an_admin_key_makes_an_admin(access):
    assert access.caller(PATH, bearer("key-r")) == Caller("root", is_admin=True)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/livez",
        "/readyz",
        "/api/v1/health",
        "/schema",
        "/schema/openapi.json",
        "/openapi.json",
    ],
)
def test_what_tells_of_no_task_needs_no_key(access, path):
    assert access.caller(path, {}) == Caller(ANONYMOUS)


@pytest.mark.parametrize(
    "path", ["/api/v1/task", "/api/v1/queue", "/metrics", "/nothing", "/livez/"]
)
def test_everything_else_needs_one(access, path):
    assert access.caller(path, {}) == UNAUTHORIZED


def test_without_keys_everybody_is_the_same_caller(clock):
    assert Access([], clock.monotonic).caller(PATH, bearer("any")) == Caller(ANONYMOUS)


def allowed(access, requests):
    answers = [access.caller(PATH, bearer("key-b")) for _ in range(requests)]
    return sum(isinstance(answer, Caller) for answer in answers)


def test_a_key_may_ask_as_often_as_its_rate_says(access, clock):
    assert allowed(access, 10) == 2
    clock.advance(0.5)
    assert allowed(access, 10) == 1
    clock.advance(3600)
    assert allowed(access, 10) == 2  # what was not used does not add up
    assert access.caller(PATH, bearer("key-a")) == Caller("alice")


@pytest.mark.parametrize(("key", "seconds"), [("key-b", 1), ("key-s", 60)])
def test_a_request_too_many_is_told_when_to_come_back(access, key, seconds):
    while not isinstance(refused := access.caller(PATH, bearer(key)), Refusal):
        pass
    assert (refused.status, refused.code, refused.retry_after) == (429, "rate_limited", seconds)


def test_a_new_key_opens_what_its_entry_is_for(clock):
    text, entry = new_key("carol")
    other, _ = new_key("carol")
    access = Access([entry], clock.monotonic)
    assert access.caller(PATH, bearer(text)) == Caller("carol")
    assert access.caller(PATH, bearer(other)) == UNAUTHORIZED
