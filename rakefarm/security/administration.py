"""`rakefarm key`: make keys, show them, put one onto another machine.

A token is never an argument or a variable of any program: it is read from its file, and goes to another machine over
the standard input of the user's own ssh.
"""

import argparse
import os
import pwd
import re
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence

from rakefarm import standard
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus
from rakefarm.process import run_with_input
from rakefarm.security import keys

_DESTINATION = re.compile(r"(?:[A-Za-z0-9_][\w.-]*@)?[\w\[][\w.:%\[\]-]*")
_KNOWN, _OTHER, _UNFIT = 3, 4, 5
_RECEIVE = """\
umask 077
name={name}
directory=${{XDG_CONFIG_HOME:-$HOME/.config}}/rakefarm
file=$directory/keys
mkdir -p "$directory" || exit 1
IFS= read -r line || exit 1
if [ -L "$file" ]; then exit {unfit}; fi
if [ -e "$file" ]; then
    while IFS= read -r there || [ -n "$there" ]; do
        if [ "$there" = "$line" ]; then exit {known}; fi
        case $there in "$name"|"$name "*) exit {other} ;; esac
    done < "$file"
fi
new=$(mktemp "$file.XXXXXX") || exit 1
trap 'rm -f "$new"' EXIT
if [ -e "$file" ]; then cat "$file" > "$new" && printf '\\n' >> "$new" || exit 1; fi
printf '%s\\n' "$line" >> "$new" && mv "$new" "$file"
"""
"""What ssh has the other machine's shell do: with words of its own only, so that no program there has the token among
its arguments. A file may lack its last newline, so one is added; empty lines do no harm."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of `rakefarm key`."""
    commands = parser.add_subparsers(dest="key_command", metavar="COMMAND", required=True)
    new = commands.add_parser("new", help="make a key and add it to the file; a name that is there is never replaced")
    new.add_argument("name", nargs="?", metavar="NAME", help="whose key it is (default: user@host)")
    show = commands.add_parser("show", help="list names and fingerprints")
    show.add_argument("name", nargs="?", metavar="NAME", help="this one only")
    show.add_argument("--secret", action="store_true", help="print the tokens themselves: whoever sees one has the key")
    add = commands.add_parser("add-host", help="put a key, made if there is none, onto machines through your own ssh")
    add.add_argument("hosts", nargs="+", metavar="HOST", help="[user@]host, as ssh takes it")
    add.add_argument("--name", metavar="NAME", default="", help="which key (default: the first of the file)")
    for command in (new, show, add):
        command.add_argument(
            "--key-file", metavar="FILE", default="", help="the key file (default: $XDG_CONFIG_HOME/rakefarm/keys)"
        )


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what the command line says; answers the exit status. Raises ConfigError."""
    path = options.key_file or keys.default_path(environ)
    if options.key_command == "new":
        _make(path, options.name if options.name is not None else _own_name())
    elif options.key_command == "show":
        _show(path, options.name, options.secret)
    else:
        return standard.finish(_add_to_hosts(path, options.name, options.hosts, environ))
    return standard.finish(int(ExitStatus.OK))


def _make(path: str, name: str) -> None:
    key = keys.add_key(path, name)
    print(f"{path}: key {key.name}, fingerprint {key.fingerprint}", flush=True)


def _own_name() -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    name = f"{user}@{socket.gethostname().partition('.')[0]}"
    return re.sub(r"[^A-Za-z0-9._@-]", "-", name).lstrip("._@-")[:64] or "key"


def _show(path: str, name: str | None, secret: bool) -> None:
    keyring = keys.read_keys(path)
    if name is not None:
        keyring = {name: keys.choose(keyring, name, path)}
    for key in keyring.values():
        if secret:
            sys.stdout.write(keys.format_key(key))
        else:
            print(f"{key.name}  fingerprint {key.fingerprint}")


def _add_to_hosts(path: str, name: str, hosts: Sequence[str], environ: Mapping[str, str]) -> int:
    for host in hosts:
        if not _DESTINATION.fullmatch(host):
            raise ConfigError(f"{host[:80]!r} is no host; write [user@]host, as ssh takes it")
    if not name and not os.path.lexists(path):
        _make(path, _own_name())  # who puts a key onto the first machines has none yet
    key = keys.choose(keys.read_keys(path), name, path)
    script = _RECEIVE.format(name=shlex.quote(key.name), known=_KNOWN, other=_OTHER, unfit=_UNFIT)
    failed = 0
    for host in hosts:
        status = run_with_input(
            ["ssh", "--", host, f"sh -c {shlex.quote(script)}"], environ, keys.format_key(key).encode()
        )
        failed += status not in (0, _KNOWN)
        print(f"{host}: {_describe(status, key.name)}", flush=True)
    return int(ExitStatus.FARM_FAILED if failed else ExitStatus.OK)


def _describe(status: int, name: str) -> str:
    if status == 0:
        return f"has the key {name} now; a server that runs there takes it after a SIGHUP"
    if status == _KNOWN:
        return f"had the key {name} already"
    if status == _OTHER:
        return f"has another key {name}; nothing was changed"
    if status == _UNFIT:
        return "its key file is a link; nothing was changed"
    if status == 127:
        return "there is no ssh here to reach it with"
    return f"ssh ended with status {status}; its message is above"
