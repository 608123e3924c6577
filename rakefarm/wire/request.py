"""What a request is known by: the same for the same action over the same inputs, whoever asks for it, and when."""

from msgspec import structs

from rakefarm.wire.codec import encode
from rakefarm.wire.messages import Execute, Task


def digest_of(request: Execute) -> bytes:
    """The SHA-256 of EXECUTE without what has no part in its result: lease, start, label, and all of the task but its
    needs, which are sorted, as are the variables."""
    import hashlib  # loading it takes longer than a small build has

    needs = tuple(sorted(request.task.needs, key=lambda need: (need.key, need.value)))
    variables = tuple(sorted(request.environment, key=lambda variable: variable.name))
    plain = structs.replace(
        request, lease=0, start=0, task=Task("", needs, 0, 0.0, 0), environment=variables, label="", repeatable=1
    )
    return hashlib.sha256(encode(plain)).digest()
