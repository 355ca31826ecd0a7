"""Where a setting comes from: later wins, mappings merge, lists replace, nothing is evaluated."""

import pytest

from settings.conversion import convert, source_of
from settings.schema import Settings


def test_with_nothing_given_the_local_environment_holds(load):
    settings, sources = load()
    assert settings.dev_mode is True
    assert source_of("dev_mode", sources) == "settings/local.yaml"
    assert source_of("server.port", sources) == "settings/default.yaml"


@pytest.mark.parametrize(
    ("environment", "dev_mode", "log_format"),
    [("local", True, "auto"), ("develop", True, "auto"), ("production", False, "json")],
)
def test_env_chooses_the_file(load, environment, dev_mode, log_format):
    settings, _ = load(ENV=environment)
    assert (settings.dev_mode, settings.logging.format) == (dev_mode, log_format)


def test_the_variables_of_clients_are_no_settings(load):
    assert load(TASK_AGENT_URL="http://127.0.0.1:9000", TASK_AGENT_API_KEY="ta_x") == load()


def test_later_sources_win_over_earlier_ones(load, write):
    listed = write("server: {port: 1}\napp_name: listed\n", "listed.yaml")
    given = write("server: {port: 2}\n", "given.yaml")
    both = {"TASK_AGENT_SETTINGS": str(listed)}
    assert load(given, **both)[0].server.port == 2
    assert load(given, **both)[0].app_name == "listed"
    variable = both | {"TASK_AGENT_SERVER__PORT": "3"}
    assert load(given, **variable)[0].server.port == 3
    assert load(given, arguments={"server.port": 4}, **variable)[0].server.port == 4


def test_files_are_merged_in_the_order_given(load, write):
    first = write("server: {port: 1, drain_seconds: 1}\n", "first.yaml")
    second = write("server: {port: 2}\n", "second.yaml")
    assert load(first, second)[0].server.port == 2
    assert load(second, first)[0].server.port == 1
    listed, _ = load(TASK_AGENT_SETTINGS=f"{first}:{second}")
    assert (listed.server.port, listed.server.drain_seconds) == (2, 1)


def test_a_files_environment_wins_over_the_defaults_only_in_what_it_names(load, write):
    settings, _ = load(write("inference:\n  max_attempts: 5\n"))
    assert settings.inference.max_attempts == 5
    assert settings.inference.max_pending_tasks == 10_000


def test_lists_replace(load, write):
    first = write("security: {allowed_hosts: [a, b]}", "first.yaml")
    second = write("security: {allowed_hosts: [c]}", "second.yaml")
    assert load(first, second)[0].security.allowed_hosts == ["c"]
    variable = {"TASK_AGENT_SECURITY__ALLOWED_HOSTS": '["d"]'}
    assert load(first, **variable)[0].security.allowed_hosts == ["d"]


def test_mappings_merge(load, write):
    first = write("executors: {gpt: {kind: echo, models: [a], headers: {X-A: a}}}", "first.yaml")
    second = write("executors: {gpt: {models: [b], headers: {X-B: b}}}", "second.yaml")
    settings, _ = load(first, second, TASK_AGENT_EXECUTORS__GPT='{"defaults": {"seed": 1}}')
    assert set(settings.executors) == {"echo", "gpt"}
    assert settings.executors["gpt"].models == ["b"]
    assert settings.executors["gpt"].options == {
        "headers": {"X-A": "a", "X-B": "b"},
        "defaults": {"seed": 1},
    }


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TASK_AGENT_EXECUTORS__ECHO": "null"},
        {"TASK_AGENT_EXECUTORS": '{"echo": null}'},
    ],
)
def test_an_executor_that_is_null_is_removed(load, write, variables):
    gpt = write("executors: {gpt: {kind: echo}}\ninference: {default_executor: gpt}", "gpt.yaml")
    files = [gpt] if variables else [gpt, write("executors: {echo: null}")]
    assert set(load(*files, **variables)[0].executors) == {"gpt"}


def test_an_executor_that_was_removed_may_be_set_anew(load, write):
    first = write("executors: {echo: null}", "first.yaml")
    second = write("executors: {echo: {kind: echo, models: [a]}}", "second.yaml")
    assert load(first, second)[0].executors["echo"].models == ["a"]


def test_a_variable_reaches_a_name_whatever_its_case(load, write):
    mixed = write("executors: {MyModel: {kind: echo}}")
    settings, _ = load(mixed, TASK_AGENT_EXECUTORS__MYMODEL__MODELS='["a"]')
    assert settings.executors["MyModel"].models == ["a"]
    assert set(settings.executors) == {"echo", "MyModel"}


def test_a_variable_for_a_key_wins_over_one_for_its_section(load):
    settings, _ = load(
        TASK_AGENT_SERVER__PORT="2", TASK_AGENT_SERVER='{"port": 1, "drain_seconds": 3}'
    )
    assert (settings.server.port, settings.server.drain_seconds) == (2, 3)


def test_numbers_booleans_and_lists_in_a_variable_are_json(load):
    settings, _ = load(
        TASK_AGENT_INFERENCE__TASK_RETENTION_HOURS="0.5",
        TASK_AGENT_SECURITY__ALLOW_ANONYMOUS="true",
        TASK_AGENT_SECURITY__ALLOWED_HOSTS='["a"]',
        TASK_AGENT_STORE__MIN_FREE_BYTES="1",
    )
    assert settings.inference.task_retention_hours == 0.5
    assert settings.security.allow_anonymous is True
    assert settings.security.allowed_hosts == ["a"]
    assert settings.store.min_free_bytes == 1


@pytest.mark.parametrize("text", ["123", "007", "true", "null", "[1]", '"quoted"', "@int 1"])
def test_a_text_stays_the_text_that_stands_in_the_variable(load, text):
    settings, _ = load(TASK_AGENT_APP_NAME=text)
    assert settings.app_name == text


@pytest.mark.parametrize(
    "text",
    ["@format {env[HOME]}", "@jinja {{ 1 + 1 }}", "@int 7", "@read_file /etc/passwd", "${HOME}"],
)
def test_nothing_in_a_value_is_evaluated(load, write, text):
    assert load(write(f"app_name: '{text}'"))[0].app_name == text
    assert load(TASK_AGENT_APP_NAME=text)[0].app_name == text


def test_options_of_an_executor_take_the_type_that_their_kind_wants(load):
    from adapters.executors.openai_compatible import OpenAICompatibleExecutor

    settings, sources = load(
        TASK_AGENT_EXECUTORS__GPT__KIND="openai_compatible",
        TASK_AGENT_EXECUTORS__GPT__BASE_URL="http://127.0.0.1:1/v1",
        TASK_AGENT_EXECUTORS__GPT__API_KEY="123",
        TASK_AGENT_EXECUTORS__GPT__CONNECT_TIMEOUT_SECONDS="2.5",
        TASK_AGENT_EXECUTORS__GPT__DEFAULTS__TEMPERATURE="0.5",
    )
    given = settings.executors["gpt"].options
    options = convert(given, OpenAICompatibleExecutor.options_type, "executors.gpt", sources)
    assert options.api_key == "123"
    assert options.connect_timeout_seconds == 2.5
    assert options.defaults == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("text", "base_url"),
    [
        ("http://a/v1", "http://a/v1"),
        ('["http://a/v1", "http://b/v1"]', ["http://a/v1", "http://b/v1"]),
    ],
)
def test_an_option_may_be_one_text_or_a_list_of_them(load, text, base_url):
    from adapters.executors.openai_compatible import OpenAICompatibleExecutor

    settings, sources = load(
        TASK_AGENT_EXECUTORS__GPT__KIND="openai_compatible",
        TASK_AGENT_EXECUTORS__GPT__BASE_URL=text,
    )
    given = settings.executors["gpt"].options
    options = convert(given, OpenAICompatibleExecutor.options_type, "executors.gpt", sources)
    assert options.base_url == base_url


def test_a_text_is_read_from_the_file_that_its_variable_names(load, write):
    secret = write("s3cret\n", "secret")
    settings, sources = load(
        TASK_AGENT_EXECUTORS__ECHO__API_KEY_FILE=str(secret),
        TASK_AGENT_STORE__PATH_FILE=str(secret),
    )
    assert settings.executors["echo"].options == {"api_key": "s3cret"}
    assert settings.store.path == "s3cret"
    assert source_of("store.path", sources) == (
        f"the file {secret}, by the variable TASK_AGENT_STORE__PATH_FILE"
    )


@pytest.mark.parametrize("dev_mode", [True, False])
@pytest.mark.parametrize("words", [("true", "false"), ("1", "0"), ("Yes", "no"), ("oN", "OFF")])
def test_dev_mode_overrides_everything(load, words, dev_mode):
    found = words[0 if dev_mode else 1]
    other = "false" if dev_mode else "true"
    settings, _ = load(DEV_MODE=found, TASK_AGENT_DEV_MODE=other)
    assert settings.dev_mode is dev_mode


def test_an_empty_section_changes_nothing(load, write):
    settings, _ = load(write("server:\nexecutors:\nlogging:\n"), ENV="production")
    assert settings.server == Settings().server
    assert settings.executors == Settings().executors
    assert settings.logging.format == "json"


def test_an_empty_file_changes_nothing(load, write):
    assert load(write("# nothing yet\n"))[0] == load()[0]


def test_other_peoples_variables_are_left_alone(load):
    load(TASK_AGENTS="x", OTHER="y", INCLUDES_FOR_DYNACONF="/nowhere.yaml", DYNACONF_SERVER="x")
