"""Settings files: what is read, in which order, and that every mistake is one clear line."""

import re
from pathlib import Path

import pytest
from msgspec import structs

from rakefarm.config import ClientSettings, ConfigError, ServerSettings, load_settings


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return str(path)


def server(tmp_path: Path, text: str) -> ServerSettings:
    return load_settings(ServerSettings, "server.toml", written(tmp_path, text), {})


def test_without_a_file_the_defaults_hold(environ: dict[str, str]) -> None:
    assert load_settings(ClientSettings, "client.toml", None, environ) == ClientSettings()
    assert load_settings(ServerSettings, "server.toml", None, environ) == ServerSettings()
    assert load_settings(ClientSettings, "client.toml", None, {}) == ClientSettings()


@pytest.mark.parametrize("where", ["config/rakefarm", "home/.config/rakefarm"])
def test_the_users_file_is_found(tmp_path: Path, environ: dict[str, str], where: str) -> None:
    if where.startswith("home"):
        del environ["XDG_CONFIG_HOME"]
    directory = tmp_path / where
    directory.mkdir(parents=True)
    (directory / "client.toml").write_text("jobs = 7\n")
    settings = load_settings(ClientSettings, "client.toml", None, environ)
    assert settings == structs.replace(ClientSettings(), jobs=7)


def test_a_named_file_is_the_only_one_read(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = tmp_path / "config" / "rakefarm"
    directory.mkdir(parents=True)
    (directory / "client.toml").write_text("jobs = 7\n")
    path = written(tmp_path, 'fallback = "local"\n')
    settings = load_settings(ClientSettings, "client.toml", path, environ)
    assert (settings.jobs, settings.fallback) == (0, "local")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory"):
        load_settings(ClientSettings, "client.toml", str(tmp_path / "none.toml"), {})


def test_every_sort_of_value_is_read(tmp_path: Path) -> None:
    settings = server(
        tmp_path,
        'port = 7000\ncache_size = "2G"\nlease_s = 1\nlicenses = ["acme", "other"]\nverbose = true\n'
        'shared = ["/srv"]\n[price]\nmemory_floor = "64M"\nio_wait_weight = 0.25\n[price.base]\ncompile = 2\n',
    )
    assert settings.port == 7000
    assert settings.cache_size == 2 << 30
    assert settings.lease_s == 1.0 and isinstance(settings.lease_s, float)
    assert settings.licenses == ("acme", "other")
    assert settings.verbose is True
    assert settings.shared == ("/srv",)
    assert settings.price.memory_floor == 64 << 20
    assert settings.price.io_wait_weight == 0.25
    assert settings.price.memory_weight == ServerSettings().price.memory_weight
    assert settings.price.base == {**ServerSettings().price.base, "compile": 2.0}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1\n", "unknown key 'prot'"),
        ("port = 'x'\n", "port: 'x' is not a whole number"),
        ("port = -1\n", "port: -1 is not"),
        ("port = 1.5\n", r"port: 1\.5 is not"),
        ("port = true\n", "port: True is not"),
        ("verbose = 1\n", "verbose: 1 is not a bool"),
        ("address = 1\n", "address: 1 is not a str"),
        ("lease_s = 'soon'\n", "lease_s: 'soon' is not a float"),
        ("licenses = 'acme'\n", "licenses: 'acme' is not a list of strings"),
        ("licenses = [1]\n", "is not a list of strings"),
        ("price = 1\n", r"'price' is a table, write \[price\]"),
        ("[price]\nbase = 1\n", "base: 1 is not a table of numbers"),
        ("[price]\nbase = {compile = 0}\n", "is not a table of numbers"),
        ("[price]\nbass = 1\n", r"\[price\]: unknown key 'bass'"),
        ("port =\n", "not TOML"),
        ("port = 1\nport = 2\n", "not TOML"),
        ("lease_s = nan\n", "lease_s"),
        ("lease_s = inf\n", "lease_s"),
        ("lease_s = 0\n", r"lease_s: 0: write a number from 0\.01 to 60"),
        ("lease_s = 86400\n", "lease_s"),
        ("drain_s = 1e9\n", "drain_s"),
        ("port = 65536\n", "port: 65536: write a number from 0 to 65535"),
        ("slots = 5000\n", "slots"),
        ("workers = 10000\n", "workers"),
        ("path = 'bin:/usr/bin'\n", "path: .*directories from / on"),
        ("path = ''\n", "path"),
        ("path = '/bin::/usr/bin'\n", "path"),
        ("shared = ['here']\n", r"shared: \['here'\]: write whole paths"),
        ("isolation = 'most'\n", "isolation: 'most': write auto, none"),
        ("uids = '0-5'\n", "uids: '0-5': write like"),
        ("[programs]\ncc = 'gcc'\n", "programs: {'cc': 'gcc'}: write NAME"),
        ("sandbox_directory = './here'\n", "sandbox_directory"),
        ("cache_directory = '~/store'\n", "cache_directory"),
        ("environment = ['']\n", "environment"),
        ("environment = ['A=1']\n", "environment"),
        ("licenses = ['acme=0']\n", "licenses: .*NAME=COUNT"),
        ("quiet_hours = 'nights'\n", "quiet_hours: .*like 22:00-06:30"),
        ("[price]\nfault_half_life_s = 0\n", "fault_half_life_s"),
        ("[price]\nquiet_weight = 1e30\n", r"\[price\]: quiet_weight: 1e\+30: write a number from 0 to 1000"),
        ("[price]\nbase = {complie = 1}\n", "base: unknown key 'complie'; there are compile, link, other"),
        ("[price]\nwork = {link = 1e9}\n", "work"),
        ("[emulate]\ncores = 100000\n", r"\[emulate\]: cores"),
        ("[emulate]\nspeed = 1000\n", r"\[emulate\]: speed"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as error:
        server(tmp_path, text)
    assert "settings.toml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "attempts = 0", "attempts = 100000", "quote_s = 0", "quote_s = 1e9", "connect_s = 0.0", "jobs = 100000",
        "local_jobs = 99999", "fallback = 'none'", "ledger_size = '1K'", "environment = ['X=']",
    ],
)  # fmt: skip
def test_a_client_is_told_of_what_can_not_be_meant(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(ClientSettings, "client.toml", written(tmp_path, text), {})
    said = str(error.value)
    assert "settings.toml: " + text.split()[0] in said and "write " in said and "\n" not in said


@pytest.mark.parametrize(("cls", "name"), [(ClientSettings, "client.toml"), (ServerSettings, "server.toml")])
def test_every_default_keeps_the_rules_and_stands_in_configs(cls: type, name: str, tmp_path: Path) -> None:
    shown = (Path(__file__).resolve().parents[1] / "configs" / name).read_text()
    # A setting is a comment with an equals sign, or the head of a table; prose is neither.
    lines = [line[2:] for line in shown.splitlines() if re.match(r"# (\w+ = |\[)", line)]
    assert load_settings(cls, name, written(tmp_path, "\n".join(lines)), {}) == cls()


def test_bytes_that_are_not_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"address = '\xff'\n")
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings(ServerSettings, "server.toml", str(path), {})


def test_a_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_settings(ServerSettings, "server.toml", str(tmp_path), {})


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        ClientSettings().jobs = 1  # type: ignore[misc]
