"""Write tests/wire/golden/ anew from the examples in tests/wire/wire_examples.py: NAME.bin, its bytes, and NAME.txt.

Run it only when the protocol is meant to change, and read the difference: these bytes are what other releases speak.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "wire")]

from wire_vocabulary import golden_directory, golden_pair  # noqa: E402  the path comes first

from rakefarm.wire.messages import MessageType  # noqa: E402


def main() -> None:
    """Replace every golden file; those of messages that are gone are removed."""
    directory = golden_directory()
    os.makedirs(directory, exist_ok=True)
    written = set()
    for number in MessageType:
        data, text = golden_pair(number)
        for name, content in ((f"{number.name}.bin", data), (f"{number.name}.txt", text.encode())):
            with open(os.path.join(directory, name), "wb") as file:
                file.write(content)
            written.add(name)
    for name in set(os.listdir(directory)) - written:
        os.unlink(os.path.join(directory, name))


if __name__ == "__main__":
    main()
