"""Where `rakefarm cc` begins: a compiler call, or an option of ours, for which more has to be imported."""

import os
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """`rakefarm cc`, with what follows it; answers the exit status, or becomes the compiler."""
    if not words or words[0].startswith("-"):
        from rakefarm.cc.command import command

        return command(words)
    from rakefarm.cc.wrapper import call

    return call([os.fsencode(word) for word in words], os.environ)
