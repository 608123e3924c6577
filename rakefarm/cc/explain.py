"""Why a compiler call's result is not in the cache, or since when it is, for a person."""

import os
import time
from collections.abc import Mapping, Sequence

from rakefarm.cc.dialogue import Request
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.inquiry import Inquiry, find_inputs, inquire
from rakefarm.cc.reasons import Local
from rakefarm.cc.results import Results
from rakefarm.cc.toolchain import Toolchains
from rakefarm.records import RecordStore


def explain(words: Sequence[str], environ: Mapping[str, str], store: RecordStore) -> list[str]:
    """Lines about the call `words`, run here and now."""
    files = FileCache()
    results = Results(store, files)
    # Without -o for a terminal: what is explained is a call of make's, mostly.
    request = Request(0o022, False, os.getcwdb(), tuple([os.fsencode(word) for word in words]), environ)
    try:
        inquiry = inquire(request, Toolchains())
        lookup = results.find(inquiry)
        if lookup.made is not None:
            return ["its result is in the cache", *_history(results, inquiry)]
        closure = find_inputs(inquiry, files)
        _, made = results.find_by_inputs(lookup, closure)
    except Local as reason:
        return [f"it is not looked up, since {reason}"]
    if made is not None:
        return ["its result is in the cache, though its inputs are found another way now", *_history(results, inquiry)]
    lines = [f"its result is not in the cache: {lookup.miss.cause.value}"]
    lines += [f"  {each}" for each in lookup.miss.details]
    return lines


def _history(results: Results, inquiry: Inquiry) -> list[str]:
    """Why the calls of this source that are remembered were compiled, the last first."""
    lines = []
    for each in results.earlier(inquiry.source):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.at_s))
        lines.append(f"  compiled {when}: {each.missed}")
    return lines
