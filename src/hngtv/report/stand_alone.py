"""What lets a page stand alone in one file: a policy that forbids all else, and the version that wrote it."""

import base64
import hashlib
import re
from importlib import metadata

POLICY = "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'"
"""Content security policy of a page: its own style and script, by their hashes, and pictures inside it."""


def policy_of(page: str) -> str:
    """The strictest content security policy under which a page works."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    return POLICY.format(hashes("style"), hashes("script"))


def package_version() -> str:
    try:
        return metadata.version("hngtv")
    except metadata.PackageNotFoundError:
        return "from a checkout"
