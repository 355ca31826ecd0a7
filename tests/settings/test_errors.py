"""What is wrong with settings is one message: key, source, what was found, what is allowed."""

import pytest
from msgspec import Struct

from settings.conversion import SettingsError, convert


def test_an_unknown_environment_is_refused_by_name(refusal):
    message = refusal(ENV="prod")
    assert "ENV" in message
    assert "'prod'" in message
    assert "local, develop, production" in message


@pytest.mark.parametrize("found", ["maybe", "", "2", "truee"])
def test_dev_mode_is_a_switch(refusal, found):
    message = refusal(DEV_MODE=found)
    assert message.startswith(f"DEV_MODE (a variable) is {found!r}; allowed: true")


@pytest.mark.parametrize(
    ("variable", "key", "meant"),
    [
        ("TASK_AGENT_SERVER__PROT", "server.prot", "port"),
        (
            "TASK_AGENT_INFERENCE__MAX_CONCURENT_TASKS",
            "max_concurent_tasks",
            "max_concurrent_tasks",
        ),
        ("TASK_AGENT_SERVR__PORT", "servr", "server"),
        ("TASK_AGENT_PORT", "port", "server.port"),
        ("TASK_AGENT_MAX_TASKS_COUNT", "max_tasks_count", "inference.max_tasks_count"),
    ],
)
def test_a_misspelt_key_says_which_one_it_may_have_meant(refusal, variable, key, meant):
    message = refusal(**{variable: "1"})
    assert key in message
    assert f"the variable {variable}" in message
    assert f"did you mean {meant}?" in message


def test_an_unknown_key_in_a_file_names_the_file(refusal, write):
    path = write("server:\n  hots: x\n")
    assert refusal(path) == (
        f"server.hots (from the file {path}) is not a setting; did you mean host? "
        "allowed under server: drain_seconds, host, max_body_bytes, port"
    )


@pytest.mark.parametrize(
    "key", ["dynaconf_merge", "loaders_for_dynaconf", "DYNACONF_INCLUDE", "dynaconf_include"]
)
def test_what_steers_dynaconf_is_no_setting(refusal, write, key):
    assert f"{key} (from" in refusal(write(f"{key}: [x]\n"))


def test_what_steers_dynaconf_is_no_option_of_an_executor(refusal, write):
    message = refusal(write("executors: {echo: {dynaconf_merge: false}}"))
    assert "executors.echo.dynaconf_merge" in message


@pytest.mark.parametrize(
    ("variable", "found", "allowed"),
    [
        ("SERVER__PORT", "x", "a whole number >= 0 and <= 65535"),
        ("SERVER__PORT", "65536", "a whole number >= 0 and <= 65535"),
        ("SERVER__PORT", "-1", "a whole number >= 0 and <= 65535"),
        ("SERVER__PORT", "80.5", "a whole number >= 0 and <= 65535"),
        ("SERVER__PORT", "true", "a whole number >= 0 and <= 65535"),
        ("SERVER__PORT", "", "a whole number >= 0 and <= 65535"),
        ("INFERENCE__TIMEOUT_SECONDS", "0", "a number > 0 and <= 3000000000"),
        ("INFERENCE__TIMEOUT_SECONDS", "1e999", "a number > 0 and <= 3000000000"),
        ("INFERENCE__TIMEOUT_SECONDS", "NaN", "a number > 0 and <= 3000000000"),
        ("INFERENCE__MAX_ATTEMPTS", "11", "a whole number >= 1 and <= 10"),
        ("STORE__DURABILITY", "half", "full or normal"),
        ("STORE__MIN_FREE_BYTES", "some", "a whole number >= 0 and <= 1000000000000 or null"),
        ("SECURITY__ALLOW_ANONYMOUS", "yes", "true or false"),
        ("LOGGING__LEVEL", "loud", "debug or error or info or warning"),
    ],
)
def test_a_wrong_value_of_a_variable_is_told_with_what_is_allowed(
    refusal, variable, found, allowed
):
    key = variable.lower().replace("__", ".")
    expected = f"{key} (from the variable TASK_AGENT_{variable}) is {found!r}; allowed: {allowed}"
    assert refusal(**{f"TASK_AGENT_{variable}": found}) == expected


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ("server: {port: '80'}", "server.port", "'80'"),
        ("server: {port: [80]}", "server.port", "a list"),
        ("server: {port: null}", "server.port", "empty"),
        ("server: 80", "server", "80"),
        ("server: [80]", "server", "a list"),
        ("executors: {a: echo}", "executors.a", "text of 4 characters"),
        ("executors: {a: {kind: 1}}", "executors.a.kind", "1"),
        ("security: {allowed_hosts: [1]}", "security.allowed_hosts", "a list that does not fit"),
        ("security: {allowed_hosts: a}", "security.allowed_hosts", "text of 1 characters"),
        ("inference: {timeout_seconds: .inf}", "inference.timeout_seconds", "inf"),
        ("inference: {timeout_seconds: .nan}", "inference.timeout_seconds", "nan"),
        ("app_name: ''", "app_name", "''"),
        ("app_name: 12", "app_name", "12"),
        ("dev_mode: 1", "dev_mode", "1"),
    ],
)
def test_a_wrong_value_in_a_file_is_told_with_the_file(refusal, write, text, key, found):
    path = write(text)
    assert refusal(path).startswith(f"{key} (from the file {path}) is {found}; allowed: ")


SHA256 = "a" * 64


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("a", "security.api_keys (from {path}) is text of 1 characters; allowed: a list of mapp"),
        ("[a]", "security.api_keys (from {path}) is a list that does not fit; allowed: a list of"),
        ("[{name: a}]", "security.api_keys[0].sha256 is missing (the rest of security.api_keys[0]"),
        (f"[{{name: a, sha256: {SHA256}, nmae: b}}]", "security.api_keys[0].nmae (from {path}) is"),
        (f"[{{name: a b, sha256: {SHA256}}}]", "security.api_keys[0].name (from {path}) is 'a b'"),
        ("[{name: a, sha256: my-own-key}]", "security.api_keys[0].sha256 (from {path}) is '***'"),
        (
            f"[{{name: a, sha256: {SHA256}, requests_per_second: 0}}]",
            "security.api_keys[0].requests_per_second (from {path}) is 0; allowed: a number > 0",
        ),
        (
            f"[{{name: a, sha256: {SHA256}}}, {{name: b, sha256: {SHA256}}}]",
            "security.api_keys[1].sha256 (from {path}) stands in this list before",
        ),
    ],
)
def test_a_wrong_api_key_is_told_with_its_place_and_without_the_key(refusal, write, keys, said):
    path = write(f"security: {{api_keys: {keys}}}")
    assert refusal(path).startswith(said.format(path=f"the file {path}"))


def test_an_executor_without_a_kind_is_told(refusal, write):
    path = write("executors: {gpt: {models: [a]}}")
    message = refusal(path)
    assert message.startswith("executors.gpt.kind is missing")
    assert str(path) in message


def test_a_default_executor_that_does_not_exist_is_told(refusal):
    message = refusal(TASK_AGENT_INFERENCE__DEFAULT_EXECUTOR="gpt")
    assert "inference.default_executor" in message
    assert "allowed: echo" in message


@pytest.mark.parametrize(("others", "left"), [("", "none is left"), (", gpt: {kind: echo}", "gpt")])
def test_a_default_executor_that_was_removed_is_told_with_where(refusal, write, others, left):
    path = write(f"executors: {{echo: null{others}}}")
    assert refusal(path) == (
        "inference.default_executor (from settings/default.yaml) is 'echo', but executors.echo"
        f" (from the file {path}) is null; allowed: {left} (the names under executors)"
    )


def test_a_name_in_another_case_is_not_told_as_removed(refusal, write):
    path = write("executors: {GPT: {kind: echo}}\ninference: {default_executor: gpt}")
    assert "is null" not in refusal(path)


def test_an_argument_is_named_as_the_option_that_it_is(refusal):
    assert "(from the option --host) is ''" in refusal(arguments={"server.host": ""})


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("server: [", "line 1"),
        ("- a\n- b\n", "holds list, allowed: a mapping of keys"),
        ("just text", "holds str, allowed: a mapping of keys"),
        ("a: 1\n---\nb: 2\n", "found another document"),
        (
            "app_name: secret-one\napp_name: secret-two\n",
            'found duplicate key "app_name" in line 2',
        ),
        ("app_name: &a x\nserver: {host: *a}\n", "aliases are not allowed in line 2"),
        ("app_name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("app_name: !env HOME\n", "could not determine a constructor"),
        ("1: x\n", "a key that is not text"),
        ("server:\n  ? [a]\n  : 1\n", "a key that is not text"),
        ("app_name: \x00\n", "characters that YAML does not allow"),
        (b"app_name: \xff\n", "not UTF-8"),
        ("[" * 50_000, "nested too deeply"),
        ("app_name: 2020-13-45", "a bad date"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_told_with_its_name(refusal, write, text, fault):
    path = write(text)
    message = refusal(path)
    assert fault in message
    assert str(path) in message
    assert "secret" not in message


def test_aliases_are_refused_before_they_grow(refusal, write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases are not allowed" in refusal(write("\n".join(lines)))


def test_a_missing_file_is_told(refusal, tmp_path):
    missing = tmp_path / "missing.yaml"
    assert "No such file" in refusal(missing)
    assert str(missing) in refusal(TASK_AGENT_SETTINGS=str(missing))
    assert "TASK_AGENT_STORE__PATH_FILE" in refusal(TASK_AGENT_STORE__PATH_FILE=str(missing))


def test_a_folder_is_no_file(refusal, tmp_path):
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_a_text_and_a_file_for_it_are_one_too_many(refusal, write):
    message = refusal(TASK_AGENT_STORE__PATH="x", TASK_AGENT_STORE__PATH_FILE=str(write("y")))
    assert "TASK_AGENT_STORE__PATH_FILE and TASK_AGENT_STORE__PATH are both set" in message


# --- options of adapters, and secrets ----------------------------------------------------------


@pytest.fixture
def option_refusal(load):
    """The message with which the `openai_compatible` executor refuses these options."""
    from adapters.executors.openai_compatible import OpenAICompatibleExecutor

    def refusal(**variables: str) -> str:
        given = {f"TASK_AGENT_EXECUTORS__GPT__{name}": value for name, value in variables.items()}
        settings, sources = load(**({"TASK_AGENT_EXECUTORS__GPT__KIND": "x"} | given))
        options = settings.executors["gpt"].options
        with pytest.raises(SettingsError) as caught:
            convert(options, OpenAICompatibleExecutor.options_type, "executors.gpt", sources)
        return str(caught.value)

    return refusal


def test_an_option_that_the_kind_does_not_know_is_told(option_refusal):
    message = option_refusal(BASE_URI="http://x/v1")
    assert (
        "executors.gpt.base_uri (from the variable TASK_AGENT_EXECUTORS__GPT__BASE_URI)" in message
    )
    assert "did you mean base_url?" in message


def test_an_option_that_its_kind_refuses_is_told_with_the_reason(option_refusal):
    assert option_refusal(BASE_URL="models.example") == (
        "executors.gpt.base_url (from the variable TASK_AGENT_EXECUTORS__GPT__BASE_URL):"
        " base_url must start with http:// or https:// and a host"
    )


def test_a_misspelt_key_beside_the_options_is_told(option_refusal):
    assert "did you mean models?" in option_refusal(MODLES='["a"]')


class Unbounded(Struct):
    seconds: float


@pytest.mark.parametrize("found", [".inf", "-.inf", ".nan"])
def test_a_number_that_is_none_is_told_though_the_option_has_no_bounds(load, write, found):
    settings, sources = load(write(f"executors: {{x: {{kind: x, seconds: {found}}}}}"))
    with pytest.raises(SettingsError, match=r"executors\.x\.seconds .* allowed: a number"):
        convert(settings.executors["x"].options, Unbounded, "executors.x", sources)


def test_a_secret_is_never_shown(option_refusal, refusal):
    for headers in ('{"Authorization": ["s3cret"]}', '{"Authorization": "s3cret"', "s3cret"):
        assert "s3cret" not in option_refusal(BASE_URL="http://x/v1", HEADERS=headers)
    assert "s3cret" not in refusal(TASK_AGENT_EXECUTORS__GPT='{"api_key": "s3cret"')
