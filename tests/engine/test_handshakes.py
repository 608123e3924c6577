"""What is said of a connection to an engine that does not come to be, and that it is said once."""

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from grpc_vocabulary import Counter, open_engine

from rakefarm.config import ConfigError, EngineSettings
from rakefarm.engine.access import Access, check_engine
from rakefarm.engine.address import EngineAddress
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.channel import Channel
from rakefarm.engine.errors import EngineAway, EngineError, EngineRefuses
from rakefarm.engine.methods import GET_CAPABILITIES
from rakefarm.server.join import crew

CONNECT_S = 5.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", "ours")


def tell(_: bytes, __: grpc.ServicerContext) -> api.ServerCapabilities:
    return api.ServerCapabilities()


def server_credentials(files: tuple[Path, Path], clients: Path | None = None) -> grpc.ServerCredentials:
    certificate, key = (path.read_bytes() for path in files)
    return grpc.ssl_server_credentials(
        [(key, certificate)], clients.read_bytes() if clients else None, require_client_auth=clients is not None
    )


def ask(channel: Channel) -> Any:
    return channel.call_first(GET_CAPABILITIES, api.GetCapabilitiesRequest(), CONNECT_S)


def refusal(credentials: grpc.ServerCredentials, access: Access) -> EngineError:
    with (
        open_engine(tell=(GET_CAPABILITIES, "unary", tell), credentials=credentials, access=access) as channel,
        pytest.raises(EngineError) as error,
    ):
        ask(channel)
    assert "\n" not in str(error.value)
    return error.value


def test_an_authority_of_our_own_is_enough(authority: Authority) -> None:
    credentials = server_credentials(authority.issue("server"))
    access = Access(authority=str(authority.file))
    with open_engine(tell=(GET_CAPABILITIES, "unary", tell), credentials=credentials, access=access) as channel:
        assert ask(channel) == api.ServerCapabilities()


def test_a_certificate_of_nobody_we_trust(authority: Authority, tmp_path: Path) -> None:
    credentials = server_credentials(authority.issue("server"))
    other = Authority(tmp_path / "pki", "other")
    failure = refusal(credentials, Access(authority=str(other.file)))
    assert isinstance(failure, EngineRefuses) and not failure.is_about_access
    assert "its certificate can't be trusted" in str(failure) and "tls_authority" in str(failure)


def test_a_certificate_for_another_name_or_another_day(authority: Authority) -> None:
    access = Access(authority=str(authority.file))
    failure = refusal(server_credentials(authority.issue("elsewhere", host="elsewhere.example")), access)
    assert "'localhost'" in str(failure) and "write the name that it is for" in str(failure)
    failure = refusal(server_credentials(authority.issue("old", lasts=-timedelta(hours=1))), access)
    assert "certificate has expired" in str(failure)


def test_a_certificate_of_ours_that_is_asked_for(authority: Authority, tmp_path: Path) -> None:
    credentials = server_credentials(authority.issue("server"), authority.file)
    client = [str(path) for path in authority.issue("client")]
    access = Access("", str(authority.file), *client)
    with open_engine(tell=(GET_CAPABILITIES, "unary", tell), credentials=credentials, access=access) as channel:
        assert ask(channel) == api.ServerCapabilities()
    failure = refusal(credentials, Access(authority=str(authority.file)))
    assert isinstance(failure, EngineRefuses) and failure.is_about_access
    assert "wants a certificate of ours" in str(failure) and "tls_certificate" in str(failure)
    stranger = [str(path) for path in Authority(tmp_path / "pki", "other").issue("stranger")]
    failure = refusal(credentials, Access("", str(authority.file), *stranger))
    assert isinstance(failure, EngineRefuses) and failure.is_about_access
    assert "does not take our certificate" in str(failure)


def test_one_end_speaks_tls_and_the_other_does_not(authority: Authority) -> None:
    with open_engine(tell=(GET_CAPABILITIES, "unary", tell)) as plain:
        port = plain.address.port
        encrypted = Channel(EngineAddress("localhost", port, True), Access(authority=str(authority.file)), 0.0)
        with pytest.raises(EngineRefuses, match=f"grpcs://localhost:{port} speaks no TLS: write grpc://"):
            ask(encrypted)
        encrypted.close()
    credentials = server_credentials(authority.issue("server"))
    access = Access(authority=str(authority.file))
    with open_engine(tell=(GET_CAPABILITIES, "unary", tell), credentials=credentials, access=access) as secure:
        port = secure.address.port
        bare = Channel(EngineAddress("localhost", port, False), Access(), 0.0)
        with pytest.raises(EngineRefuses, match=f"grpc://localhost:{port} speaks TLS: write grpcs://"):
            ask(bare)
        bare.close()


def test_where_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        channel = Channel(EngineAddress("127.0.0.1", sock.getsockname()[1], False), Access(), 60.0)
        with pytest.raises(EngineAway, match="refused"):
            ask(channel)
        channel.close()


def test_files_that_are_no_certificates(authority: Authority, tmp_path: Path) -> None:
    certificate, key = (str(path) for path in authority.issue("client"))
    _, other_key = (str(path) for path in authority.issue("other"))
    (tmp_path / "text").write_text("no certificate\n")
    text = str(tmp_path / "text")

    def check(**files: str) -> None:
        check_engine(EngineSettings(url="grpcs://localhost", **files), insecure=False)  # type: ignore[arg-type]

    check(tls_authority=str(authority.file), tls_certificate=certificate, tls_private_key=key)
    with pytest.raises(ConfigError, match="not in PEM format"):
        check(tls_authority=text)
    with pytest.raises(ConfigError, match="not in PEM format"):
        check(tls_certificate=text, tls_private_key=key)
    with pytest.raises(ConfigError, match="the key is not the certificate's"):
        check(tls_certificate=certificate, tls_private_key=other_key)
    with pytest.raises(ConfigError, match="no use without the other"):
        check(tls_certificate=certificate)


def test_a_token_file_that_is_gone_is_a_refusal(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("good\n")
    with open_engine(tell=(GET_CAPABILITIES, "unary", tell), access=Access(str(token))) as channel:
        insecure = Channel(channel.address, Access(str(token)), 0.0)
        assert ask(insecure) == api.ServerCapabilities()
        token.unlink()
        with pytest.raises(EngineRefuses, match="No such file") as error:
            ask(insecure)
        assert error.value.is_about_access
        insecure.close()


def test_news_of_an_engine_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    news = crew._News("joined")
    told = Counter()
    with caplog.at_level("INFO", logger="rakefarm"):
        for problem in ("", "", "away", "refused", "away", "refused", "", "", "away"):
            news.say(problem)
            told.next()
        assert [record.message for record in caplog.records] == ["joined", "away", "refused", "joined", "away"]
        caplog.clear()
        for number in range(100):
            news.say(f"worded anew: {number}")
        assert len(caplog.records) < 25
