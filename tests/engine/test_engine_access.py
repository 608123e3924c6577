"""Who is let in at a BuildGrid by TLS, certificates and tokens, and the one line for whoever is not."""

import time
from pathlib import Path

import pytest
from certificates import Authority
from engine_vocabulary import MakeEngine
from farm_vocabulary import Built, Project
from parts import BuildGrid
from server_vocabulary import Server, StartServer

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine"), pytest.mark.timeout(300)]
ACTIONS = 12
SECRET = "a secret of these tests, which is long enough for its hash"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", "ours")


def channel_of(authority: Authority, asks_for_certificates: bool = False) -> str:
    """How BuildGrid's configuration has TLS."""
    certificate, key = authority.issue("engine")
    lines = ["    insecure-mode: false", "    credentials:"]
    lines += [f"      tls-server-key: {key}", f"      tls-server-cert: {certificate}"]
    lines += [f"      tls-client-certs: {authority.file}"] if asks_for_certificates else []
    return "\n".join(lines)


def configure(place: Path, name: str, **files: object) -> None:
    """An [engine] of client.toml or server.toml."""
    (place / "rakefarm").mkdir(parents=True, exist_ok=True)
    lines = "".join([f'{key} = "{value}"\n' for key, value in files.items()])
    (place / "rakefarm" / name).write_text(f"[engine]\n{lines}")


def many(project: Project) -> None:
    project.rakefile(
        "many:", *[line for n in range(ACTIONS) for line in (f"remote-echo {n} > o{n}", f">produces o{n}")]
    )


def build(project: Project, engine: BuildGrid, **files: object) -> Built:
    configure(project.scratch / "config", "client.toml", **files)
    return project.build("--engine", engine.url)


def the_line(built: Built, code: str) -> str:
    """The only one that is said of it, of a build that could not begin."""
    assert built.status == 3, built.stderr
    error, summary = built.stderr.decode().splitlines()
    assert summary.startswith(f"rakefarm: 0 actions, {ACTIONS} not started in "), built.stderr
    assert error.startswith("rakefarm: error: grpc") and error.endswith(f"[{code}]"), built.stderr
    return error


def start_worker(start_server: StartServer, place: Path, engine: BuildGrid, **files: object) -> Server:
    configure(place / "config", "server.toml", **files)
    place.mkdir(exist_ok=True)
    return start_server("--slots", "2", "--join", engine.url, scratch=place)


def wait_refused(worker: Server, text: str) -> None:
    """It has said why it has not joined, in a line, and goes on trying."""
    worker.wait_for_log(text)
    time.sleep(3)  # both bots have tried by then, some more than once
    assert worker.process.poll() is None
    assert worker.log().count(text) == 1, worker.log()
    assert "Traceback" not in worker.log() and "joined" not in worker.log()


def test_tls_by_an_authority_of_our_own(
    make_engine: MakeEngine, authority: Authority, project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    engine = make_engine(scheme="grpcs", channel=channel_of(authority))
    other = Authority(tmp_path / "pki", "other")
    many(project)
    assert "its certificate can't be trusted" in the_line(build(project, engine), "RF130")
    assert "its certificate can't be trusted" in the_line(build(project, engine, tls_authority=other.file), "RF130")
    stranger = start_worker(start_server, tmp_path / "stranger", engine, tls_authority=other.file)
    wait_refused(stranger, "its certificate can't be trusted")
    worker = start_worker(start_server, tmp_path / "worker", engine, tls_authority=authority.file)
    built = build(project, engine, tls_authority=authority.file)
    assert built.status == 0, built.stderr
    assert project.read("o7") == b"7\n"
    assert "joined grpcs://localhost:" in worker.log()


def test_certificates_of_both_ends(
    make_engine: MakeEngine, authority: Authority, project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    engine = make_engine(scheme="grpcs", channel=channel_of(authority, asks_for_certificates=True))

    def files(made: Authority, name: str) -> dict[str, object]:
        certificate, key = made.issue(name)
        return {"tls_authority": authority.file, "tls_certificate": certificate, "tls_private_key": key}

    many(project)
    assert "wants a certificate of ours" in the_line(build(project, engine, tls_authority=authority.file), "RF131")
    stranger = files(Authority(tmp_path / "pki", "other"), "stranger")
    assert "does not take our certificate" in the_line(build(project, engine, **stranger), "RF131")
    nobody = start_worker(start_server, tmp_path / "nobody", engine, tls_authority=authority.file)
    wait_refused(nobody, "wants a certificate of ours")
    start_worker(start_server, tmp_path / "worker", engine, **files(authority, "worker"))
    built = build(project, engine, **files(authority, "client"))
    assert built.status == 0, built.stderr


def make_token(secret: str, expires_in_s: float) -> str:
    """A JWT by HMAC-SHA-256 (RFC 7519), made by hand: two parts in base64url, and their signature."""
    import base64
    import hashlib
    import hmac
    import json

    def text(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": "rakefarm", "aud": "BuildGrid", "exp": int(time.time() + expires_in_s)}
    head = text(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + b"." + text(json.dumps(claims).encode())
    return (head + b"." + text(hmac.new(secret.encode(), head, hashlib.sha256).digest())).decode()


def by_tokens(make_engine: MakeEngine, tmp_path: Path, **options: str) -> BuildGrid:
    (tmp_path / "secret").write_text(SECRET)
    rule = f"authorization:\n  method: jwt\n  secret: {tmp_path / 'secret'}\n  algorithm: hs256\n  audience: BuildGrid"
    return make_engine(authorization=rule, **options)


def write_token(path: Path, secret: str = SECRET, expires_in_s: float = 600) -> Path:
    beside = path.with_suffix(".new")
    beside.write_text(make_token(secret, expires_in_s))
    beside.replace(path)
    return path


def test_only_a_good_token_is_let_in(
    make_engine: MakeEngine, authority: Authority, project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    engine = by_tokens(make_engine, tmp_path, scheme="grpcs", channel=channel_of(authority))
    good = write_token(tmp_path / "good")
    wrong = write_token(tmp_path / "wrong", "another secret, as long as the first one is, more or less")
    expired = write_token(tmp_path / "expired", expires_in_s=-600)
    trusted = {"tls_authority": authority.file}
    many(project)
    for bad in ({}, {"token_file": wrong}, {"token_file": expired}):
        line = the_line(build(project, engine, **trusted, **bad), "RF131")
        assert "does not let us in" in line and (f"the token in {tmp_path}" in line) == bool(bad), line
    # Only now a worker: whatever was let in before would have waited for it.
    worker = start_worker(start_server, tmp_path / "worker", engine, **trusted, token_file=good)
    built = build(project, engine, **trusted, token_file=good)
    assert built.status == 0, built.stderr
    assert SECRET not in worker.log() and good.read_text() not in worker.log()


def test_a_worker_whose_token_is_no_good_says_so_once_and_joins_with_the_next_one(
    make_engine: MakeEngine, project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    engine = by_tokens(make_engine, tmp_path)
    token = write_token(tmp_path / "token", expires_in_s=-600)
    worker = start_worker(start_server, tmp_path / "worker", engine, token_file=token)
    wait_refused(worker, "does not let us in")
    write_token(token)
    worker.wait_for_log("joined grpc://localhost:")
    many(project)
    assert build(project, engine, token_file=token).status == 0


def test_a_token_that_expires_in_the_middle_ends_the_build_in_one_line(
    make_engine: MakeEngine, project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    engine = by_tokens(make_engine, tmp_path)
    good = write_token(tmp_path / "good")
    start_worker(start_server, tmp_path / "worker", engine, token_file=good)
    mine = write_token(tmp_path / "mine")
    project.rakefile(
        "first:", "remote-echo 1", "expire:", f"cp {write_token(tmp_path / 'old', expires_in_s=-600)} {mine}",
        "then:", *[f"remote-echo {n}" for n in range(ACTIONS)],
    )  # fmt: skip
    built = build(project, engine, token_file=mine)
    assert built.status == 3, built.stderr
    lines = built.stderr.decode().splitlines()
    told = [line for line in lines if "let us in" in line or "not run" in line or "RF" in line]
    assert len(told) == 1 and told[0].startswith("rakefarm: error: grpc://localhost:"), built.stderr
    assert told[0].endswith("[RF131]"), built.stderr


def test_with_a_fallback_all_runs_here_and_it_is_said_once(
    make_engine: MakeEngine, project: Project, tmp_path: Path
) -> None:
    engine = by_tokens(make_engine, tmp_path)
    configure(project.scratch / "config", "client.toml")
    many(project)
    built = project.build("--engine", engine.url, "--fallback", "local")
    assert built.status == 0, built.stderr
    assert project.read("o7") == b"7\n"
    said = [line for line in built.stderr.decode().splitlines() if "warning" in line or "error" in line]
    assert len(said) == 1 and f"{engine.url} left out: does not let us in: " in said[0], built.stderr
