"""Log lines of a command: short on the terminal, with times in the run's file."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from hngtv.cases.findings import Finding
from hngtv.errors import CasesFailedError, InputError


@contextlib.contextmanager
def logging_to(file: Path | None = None) -> Iterator[None]:
    """Send the package's log to stderr and, if given, to a file that is appended to; the file also gets tracebacks."""
    package = logging.getLogger("hngtv")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package.setLevel(logging.INFO)
    for handler in handlers:
        package.addHandler(handler)
    try:
        yield
    except (InputError, CasesFailedError):
        raise
    except Exception:
        package.removeHandler(terminal)  # the entry shows it there
        package.exception("unexpected error")
        raise
    finally:
        for handler in handlers:
            package.removeHandler(handler)
            handler.close()


def tell(finding: Finding) -> None:
    """Write a finding to stderr, above a progress bar if there is one."""
    start = "" if finding.severity == "error" else f"{finding.severity}: "
    tqdm.write(f"{start}{finding.text}", file=sys.stderr)
