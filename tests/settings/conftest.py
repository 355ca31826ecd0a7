"""Settings from a made-up environment, and from files that a test writes."""

from pathlib import Path

import pytest

from settings.loader import SettingsError, load_settings


@pytest.fixture
def load():
    """Load settings with these variables and files, and nothing from the real environment."""

    def load(*files: Path, arguments=None, **variables: str):
        return load_settings(files, variables, arguments)

    return load


@pytest.fixture
def refusal(load):
    """The message with which these settings are refused."""

    def refusal(*files: Path, arguments=None, **variables: str) -> str:
        with pytest.raises(SettingsError) as caught:
            load(*files, arguments=arguments, **variables)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refusal


@pytest.fixture
def write(tmp_path: Path):
    """Write a settings file."""

    def write(text: str | bytes, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write
