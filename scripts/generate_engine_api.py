"""Generate the modules of rakefarm/engine/api from its .proto files. Run it after a change to one.

It wants grpcio-tools of a release before 1.63, in an environment of its own: what that writes works with every protobuf
from 4.25 on, where later ones bind it to their own release.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Answers the exit status of the compiler of protocol buffers."""
    sources = sorted((ROOT / "rakefarm/engine/api").glob("*.proto"))
    words = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--pyi_out=."]
    return subprocess.run([*words, *[str(source.relative_to(ROOT)) for source in sources]], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
