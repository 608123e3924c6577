"""gRPC, loaded so that it leaves our standard error to us; its own word for what went wrong is in the failure, too.

It learns how much to write while it is loaded, from a variable. One that the user has set counts, and ours is gone
again before a command could inherit it.
"""

import os

_VERBOSITY = "GRPC_VERBOSITY"
_ours = _VERBOSITY not in os.environ
if _ours:
    os.environ[_VERBOSITY] = "NONE"
try:
    import grpc as grpc
finally:
    if _ours:
        del os.environ[_VERBOSITY]
