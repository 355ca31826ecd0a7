"""Routes from models to executors, and results as JSON text."""

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ResultNotStorable, ResultTooLarge
from domain.inference import (
    LARGEST_INTEGER,
    SMALLEST_INTEGER,
    InferenceResult,
    Routes,
    encode_result,
)

MUCH = 1_000_000
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(SMALLEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("model", "executor"), [("m", "llama"), ("M", "echo"), ("", "echo"), (None, "echo")]
)
def test_a_model_goes_to_the_executor_that_lists_it_else_to_the_fallback(
    model: str | None, executor: str
) -> None:
    assert Routes({"m": "llama"}, fallback="echo").executor_for(model) == executor


@given(JSON_VALUES)
def test_any_json_value_is_encoded_as_it_is(output: Any) -> None:
    assert json.loads(encode_result(InferenceResult(output), MUCH)) == {"output": output}


def test_what_an_executor_tells_beside_the_output_stands_beside_it() -> None:
    result = InferenceResult("", details={"finish_reason": "tool_calls", "tool_calls": [{"id": 1}]})
    assert json.loads(encode_result(result, MUCH)) == {"output": "", **result.details}
    with pytest.raises(ResultNotStorable):
        encode_result(InferenceResult("", details={"score": float("nan")}), MUCH)


def test_a_tuple_is_a_list_in_json() -> None:
    assert encode_result(InferenceResult((1, "a")), MUCH) == b'{"output":[1,"a"]}'


@pytest.mark.parametrize(
    "output",
    [
        float("nan"),
        float("inf"),
        {"deep": [{"down": float("-inf")}]},
        LARGEST_INTEGER + 1,
        [SMALLEST_INTEGER - 1],
        "\ud800",
        {"\udfff": 1},
        ...,
        [...],
        b"bytes",
        {1, 2},
        {1: "a number is no key"},
        datetime.date(2023, 10, 24),
    ],
    ids=repr,
)
def test_what_json_would_change_or_cannot_say_is_not_storable(output: object) -> None:
    with pytest.raises(ResultNotStorable):
        encode_result(InferenceResult(output), MUCH)


def test_a_result_that_contains_itself_is_not_storable() -> None:
    output: list[Any] = []
    output.append(output)
    with pytest.raises(ResultNotStorable):
        encode_result(InferenceResult(output), MUCH)


def test_a_result_may_be_as_long_as_the_limit_in_bytes_and_not_longer() -> None:
    text = encode_result(InferenceResult("é"), MUCH)
    assert encode_result(InferenceResult("é"), len(text)) == text
    with pytest.raises(ResultTooLarge, match=str(len(text) - 1)):
        encode_result(InferenceResult("é"), len(text) - 1)
