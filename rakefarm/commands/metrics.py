"""`rakefarm metrics`: the farm for Prometheus, on a port of the loopback interface."""

import argparse
import signal
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.commands.client_options import add_farm_options, farm_settings
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus

INTERVAL_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of an exporter."""
    add_farm_options(parser)
    parser.add_argument("--port", metavar="PORT", default="9238", help="on 127.0.0.1; 0 lets the system pick (9238)")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Until it is told to stop; answers the exit status. Raises ConfigError."""
    if not (options.port.isascii() and options.port.isdecimal() and int(options.port[:6]) <= 65535):
        raise ConfigError(f"--port {options.port}: not a whole number from 0 to 65535")
    settings, hosts = farm_settings(options, environ)
    if any(host.is_local for host in hosts):
        raise ConfigError("local: metrics are of servers that run; name this machine's by 127.0.0.1 or unix:/PATH")
    try:
        from prometheus_client import CollectorRegistry, start_http_server

        from rakefarm.client.exporter import FarmCollector
    except ImportError as error:
        raise ConfigError("metrics need prometheus_client: pip install prometheus_client") from error
    from rakefarm.client.credentials import load_credentials
    from rakefarm.client.watch import Watch

    watch = Watch(hosts, environ, settings.connect_s, load_credentials(settings, hosts, environ))
    registry = CollectorRegistry()
    watch.start(INTERVAL_S, lambda host: host)
    watch.wait_for_all(settings.connect_s)
    registry.register(FarmCollector(watch))
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the thread, which inherits it
    try:
        server, thread = start_http_server(int(options.port), addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(f"--port {options.port}: {error.strerror}") from error
    standard.say(f"rakefarm: metrics at http://127.0.0.1:{server.server_port}/metrics")
    try:
        ended = signal.sigwait(signals)
    finally:
        server.shutdown()
        thread.join()
        watch.close()
    return int(ExitStatus.INTERRUPTED if ended == signal.SIGINT else ExitStatus.OK)
