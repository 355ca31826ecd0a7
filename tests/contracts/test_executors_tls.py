"""A backend behind TLS is trusted only for a certificate that somebody trusted vouches for."""

import asyncio
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager

import msgspec
import pytest

from adapters.executors.openai_compatible import OpenAICompatibleExecutor, OpenAICompatibleOptions
from adapters.testing.executor_contract import attempt_of, result_of
from adapters.testing.upstream import FakeUpstream
from domain.errors import ExecutorUnreachable


def openssl(directory, *arguments):
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with an authority of our own (`ca.pem`) and its certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = [*new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=our authority"]
    openssl(folder, "req", "-x509", *authority, "-days", "2")
    request = [*new_key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=backend"]
    openssl(folder, "req", *request)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl(folder, "x509", "-req", "-in", "request.pem", "-out", "server.pem", *signing)
    return folder


@asynccontextmanager
async def behind_tls(certificates):
    """A fake upstream that speaks TLS; yields its base URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "key.pem")
    async with FakeUpstream(tls=context) as upstream:
        yield upstream.base_url


def ask(certificates, **settings):
    async def scene():
        async with behind_tls(certificates) as base_url:
            options = OpenAICompatibleOptions(base_url=base_url, **settings)
            async with OpenAICompatibleExecutor(options) as executor:
                return await result_of(executor, attempt_of("hello"))

    return asyncio.run(scene())


def test_an_authority_of_ones_own_may_vouch_for_the_backend(certificates):
    assert ask(certificates, ca_file=str(certificates / "ca.pem")).output == "hello"


def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(certificates):
    with pytest.raises(ExecutorUnreachable, match="SSLCertVerificationError"):
        ask(certificates)


@pytest.mark.parametrize(
    ("name", "fault"), [("missing.pem", "does not exist"), ("key.pem", "has no certificates")]
)
def test_a_file_without_certificates_is_refused_with_the_settings(certificates, name, fault):
    wrong = {"base_url": "https://a", "ca_file": str(certificates / name)}
    with pytest.raises(msgspec.ValidationError, match=fault):
        msgspec.convert(wrong, OpenAICompatibleOptions)
