"""Start three servers on loopback, print their addresses as a HOSTS line, and end them on Ctrl-C or end of input.

python3 configs/three-on-loopback.py
"""

import subprocess
import sys


def main() -> None:
    """Each server ends when its standard input does, so none outlives us."""
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", *sys.argv[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        lines = [server.stdout.readline() for server in servers if server.stdout]
        if not all(line.startswith("listening on ") for line in lines):
            sys.exit(2)
        print("HOSTS =", *(line.split()[2] for line in lines), flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    finally:
        for server in servers:
            if server.stdin:
                server.stdin.close()
        for server in servers:
            server.wait()


if __name__ == "__main__":
    main()
