"""The door to pydicom: whatever it raises becomes one line that names the file or the tag."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hngtv.cases.dicom import BARE_SUFFIXES
from hngtv.errors import InputError

UNDEFINED_LENGTH = 0xFFFFFFFF
"""A sequence of this length ends with a mark; without it, reading fails by itself. Source: DICOM PS3.5, 7.5."""


class NotDicomError(InputError):
    """The file is something else than DICOM."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Without pydicom's warnings: they are of no use to a user here, and quote values that may name a patient."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)(\.|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_header(path: Path, keywords: Sequence[str] | None = None) -> FileDataset:
    """The tags of a file without its pixels; all, or those of the given keywords.

    Raises:
        NotDicomError: The file is something else.
        InputError: It begins like DICOM and cannot be read.
    """
    tags: list[Any] | None = None if keywords is None else list(keywords)
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except InvalidDicomError:
        return _read_bare(path, tags)
    except Exception as error:  # pydicom raises nearly anything on a damaged file, OSError without a number too
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{shown(path)} cannot be read ({error.strerror}); mend its rights") from None
        raise InputError(f"{shown(path)} is damaged ({_in_short(error)}); copy it again from its source") from None


def read_whole(path: Path) -> FileDataset:
    """A file of outlines with all it holds, known to be complete: pydicom gives what is there of one cut short.

    Raises:
        InputError: The file is cut short or damaged.
    """
    try:
        dataset = dcmread(path, force=True)
    except Exception as error:  # as in read_header
        raise InputError(f"{shown(path)} is damaged ({_in_short(error)}); copy it again from its source") from None
    for element in dataset.values():
        if isinstance(element, RawDataElement) and len(element.value or b"") < element.length < UNDEFINED_LENGTH:
            raise InputError(f"{shown(path)} is cut short in its tag {element.tag}; copy it again from its source")
    return dataset


def read_pixels(path: Path) -> NDArray:
    """Stored values (rows, columns) of one slice.

    Raises:
        InputError: The file is cut short, or packed in a form for which no decoder is installed.
    """
    try:
        dataset = dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # a bare file may lack the group that tells it, too
            is_implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        pixels = dataset.pixel_array
    except Exception as error:  # pydicom and its decoders raise nearly anything on a damaged file
        raise InputError(f"{shown(path)}: {_why_no_pixels(path, error)}") from None
    if pixels.ndim != 2:
        raise InputError(f"{shown(path)} has pixels of shape {pixels.shape}; expected one slice of grey values")
    return pixels


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Value of a tag; None where it is absent, empty or not what its kind allows."""
    try:
        value = dataset.get(keyword)
    except Exception:  # a malformed value fails when it is looked at
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def text_of(dataset: Dataset, keyword: str) -> str:
    """A tag as text; "" where it is absent."""
    value = value_of(dataset, keyword)
    return "" if value is None else str(value).strip()


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; none where it is absent."""
    value = value_of(dataset, keyword)
    return list(value) if value is not None else []


def words_of(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """A tag of one or many words, in capitals; none where it is absent."""
    value = value_of(dataset, keyword)
    words = [] if value is None else [value] if isinstance(value, str) else list(value)
    return tuple(str(word).strip().upper() for word in words)


def numbers_of(dataset: Dataset, keyword: str, n: int, where: str) -> NDArray[np.float64]:
    """The n numbers of a tag.

    Raises:
        InputError: The tag is absent or does not hold n finite numbers; the line begins with `where`.
    """
    value = value_of(dataset, keyword)
    if value is None:
        raise InputError(f"{where} lacks {tag_name(keyword)}; convert it elsewhere or restore the tag")
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (n,) or not np.isfinite(numbers).all():
        raise InputError(f"{where} has {tag_name(keyword)} = {_short_text(value)}; expected {n} number(s)")
    return numbers


def number_of(dataset: Dataset, keyword: str, where: str) -> float:
    """The one number of a tag; see `numbers_of`."""
    return float(numbers_of(dataset, keyword, 1, where)[0])


def tag_name(keyword: str) -> str:
    """A tag as a user looks it up.

    >>> tag_name("PatientWeight")
    'PatientWeight (0010,1030)'
    """
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def shown(path: Path) -> str:
    """A path that any terminal can print, whatever bytes are in its names."""
    return os.fsencode(path).decode("utf-8", "replace")


def _read_bare(path: Path, tags: list[Any] | None) -> FileDataset:
    """A file without the preamble, taken as DICOM if it holds the class and the identifier of an object."""
    fault = NotDicomError(f"{shown(path)} is no DICOM file; copy it again from its source")
    if path.suffix.lower() not in BARE_SUFFIXES:
        raise fault
    if tags is not None:
        tags = [*tags, "SOPClassUID", "SOPInstanceUID"]
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        if str(dataset.get("SOPClassUID", "")).startswith("1.2.840.10008.") and "SOPInstanceUID" in dataset:
            return dataset
    except Exception:  # bytes of something else, read as tags
        pass
    raise fault


def _why_no_pixels(path: Path, error: Exception) -> str:
    try:
        syntax = UID(dcmread(path, stop_before_pixels=True, force=True).file_meta.TransferSyntaxUID)
    except Exception:  # the header cannot be read either
        return "damaged; copy it again from its source"
    if syntax.is_compressed and isinstance(error, RuntimeError | NotImplementedError | ImportError):
        return f"pixels are packed as {syntax.name}, which cannot be read here; pip install python-gdcm, or unpack them"
    return f"pixels are damaged or cut short ({_in_short(error)}); copy it again from its source"


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def _short_text(value: Any) -> str:
    return " ".join(str(value).split())[:60]
