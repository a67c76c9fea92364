"""Which `s3://` addresses the service reads: nobody gets at our files, other buckets, or other prefixes."""

from __future__ import annotations

from collections.abc import Sequence

from image_analyzer.errors import ItemError
from image_analyzer.keys import Location, parse_s3_uri

FORBIDDEN = "forbidden_address"


def allowed_location(uri: str, prefixes: Sequence[str], work_uri: str) -> Location:
    """Return bucket and key of an address that may be read.

    Args:
        prefixes: `s3://bucket/prefix/`, as the settings give them.
        work_uri: Where our own files lie; never readable, even if a prefix holds it.

    Raises:
        ItemError: It is none, or is not allowed. The message does not tell whether anything is there.
    """
    try:
        location = parse_s3_uri(uri)
    except ValueError:
        raise ItemError(FORBIDDEN, "image_uri must be s3://bucket/key") from None
    parts = location.key.split("/")
    # To S3 these are letters like any others; to stand-ins over a file system they are paths.
    odd = not location.key or any(part in ("", ".", "..") for part in parts) or not location.key.isprintable()
    inside = any(uri.startswith(prefix) for prefix in prefixes) and not f"{uri}/".startswith(f"{work_uri}/")
    if odd or not inside:
        raise ItemError(FORBIDDEN, f"this service reads below {', '.join(prefixes) or 'no address'} only")
    return location
