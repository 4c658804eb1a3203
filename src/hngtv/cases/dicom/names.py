"""Which outline is what, by its name; and case ids that are safe as file names."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from hngtv.cases.manifest import CASE_ID
from hngtv.errors import InputError

TAIL = r"( ?(\d|[a-d]|l|r|lt|rt|li|re|left|right|ct|pt|pet|mr|mass|final|v\d|gy))*"
"""What may follow the name proper: a count, a side, a dose, the scan it was drawn on.

Digits are taken one by one, so that a long number is read in one way only and matching takes no time that doubles.
"""
LEVEL = r"( ?(i{1,3}|iv|vi{0,2})[ab]?)?"
"""Level of the neck in roman numbers."""
NODE = r"(n|ln|lnn|nd|nod|node|nodes|nodal|lymph\w*|lk|adp|aden\w*|gangl\w*)"
PRIMARY = r"(p|t|pt|prim|primary|primaire|prim[aä]r\w*|tum\w*|main)"
SITE = r"(tonsil|tongue|base of tongue|bot|\w*pharynx|larynx|glottis|supraglottis|oral cavity|palate|maxilla|sinus)"
GTVP = (rf"gtv ?{PRIMARY}{TAIL}", rf"{PRIMARY} (gtv|tumou?r){TAIL}", rf"gtv {SITE}{TAIL}")
GTVN = (rf"gtv ?{NODE}( {NODE})?{LEVEL}{TAIL}", rf"{NODE}{TAIL} gtv{TAIL}")
GTV = (rf"i?gtv{TAIL}", rf"gross (tumou?r|target)( volume)?{TAIL}")
"""Regular expressions that a whole plain name must match. Source: our choice, after names met in public sets."""
MAX_ID_LENGTH = 64
DIGEST_LENGTH = 8


@dataclass(frozen=True)
class OutlinePatterns:
    """Regular expressions for the plain form of a name (see `plain_name`), which must match as a whole.

    Attributes:
        gtvp: Names of the primary tumour.
        gtvn: Names of involved lymph nodes; several of them make one class.
        gtv: Names that say GTV alone: the primary tumour, if no other name says so.
    """

    gtvp: tuple[str, ...] = GTVP
    gtvn: tuple[str, ...] = GTVN
    gtv: tuple[str, ...] = GTV

    def __post_init__(self) -> None:
        for pattern in (*self.gtvp, *self.gtvn, *self.gtv):
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"pattern {pattern!r} of outline names is no regular expression ({error})") from None


@dataclass(frozen=True)
class DicomChoices:
    """What a user may choose.

    Attributes:
        patterns: Which names mean GTVp and GTVn.
        hide_ids: Make case ids of a digest instead of the patient id.
        without_outlines: Leave RTSTRUCT and SEG files alone, as for patients to predict.
    """

    patterns: OutlinePatterns = field(default_factory=OutlinePatterns)
    hide_ids: bool = False
    without_outlines: bool = False


def plain_name(name: str) -> str:
    """A name in small letters, with one space for each run of spaces, dots, dashes, underscores and brackets.

    >>> plain_name(" GTV_N-left")
    'gtv n left'
    """
    return re.sub(r"[\s_.\-()\[\]]+", " ", unicodedata.normalize("NFKC", name).lower()).strip()


def match_names(names: Iterable[str], patterns: OutlinePatterns) -> dict[str, int]:
    """Label, 1 GTVp or 2 GTVn, of each name that has one.

    Raises:
        InputError: A name matches patterns of both.
    """
    names = list(names)
    primary = {name for name in names if _matches(name, patterns.gtvp)}
    nodes = {name for name in names if _matches(name, patterns.gtvn)}
    if both := sorted(primary & nodes):
        raise InputError(f"outline name {both[0]!r} matches patterns of GTVp and of GTVn; expected those of one")
    if not primary:
        primary = {name for name in names if name not in nodes and _matches(name, patterns.gtv)}
    return {name: 1 if name in primary else 2 for name in names if name in primary | nodes}


def case_id_of(patient_id: str, hidden: bool = False) -> str:
    """A case id for a patient id: itself where it is a plain word, else its plain part and a digest of the whole.

    Args:
        patient_id: Anything, as in ../../etc/x.
        hidden: The digest alone.
    """
    digest = hashlib.sha256(patient_id.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]
    if hidden:
        return f"case-{digest}"
    if CASE_ID.fullmatch(patient_id) and len(patient_id) <= MAX_ID_LENGTH and not patient_id.endswith("."):
        return patient_id
    ascii_only = unicodedata.normalize("NFKD", patient_id).encode("ascii", "ignore").decode()
    word = re.sub(r"[^A-Za-z0-9]+", "-", ascii_only).strip("-")[: MAX_ID_LENGTH - DIGEST_LENGTH - 1].strip("-")
    return f"{word or 'case'}-{digest}"


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, plain_name(name), re.IGNORECASE) for pattern in patterns)
