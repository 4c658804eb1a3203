import pytest

from hngtv.cases.dicom.names import OutlinePatterns, case_id_of, match_names
from hngtv.cases.manifest import CASE_ID
from hngtv.errors import InputError

GTVP = ("GTVp", "GTV-P", "gtv_p", "GTVt", "GTV T", "GTV primary", "GTV_Primary_CT", "GTV tumour", "GTVp1", "GTVp_left")
GTVP += ("GTV(p)", "GTVp 70Gy", "GTV tonsil", "GTV_oropharynx_L", "Primary tumor")
GTVN = ("GTVn", "GTV-N", "GTV_N", "gtv n 2", "GTVn1", "GTVnL", "GTV LN", "GTV_nodes_right", "GTV nodal", "GTV ADP")
GTVN += ("GTV lymph node", "GTVn_II", "GTVnIIa", "GTV_node_lt_2", "GTV node IV left", "N1_GTV", "GTVn 60 Gy")
GTV = ("GTV", "GTV_Mass_CT", "gtv 1", "iGTV", "Gross Tumor Volume")
OTHERS = (
    "PTV",
    "CTVp",
    "GTV+5mm",
    "GTV-PTV",
    "Ring_GTVp",
    "zGTVp_opt",
    "GTVp+n",
    "Parotid",
    "Body",
    "not GTV",
    "GTV-PRV",
    "CTV n",
    "",
)


@pytest.mark.parametrize("name", GTVP)
def test_primary(name: str) -> None:
    assert match_names([name], OutlinePatterns()) == {name: 1}


@pytest.mark.parametrize("name", GTVN)
def test_nodes(name: str) -> None:
    assert match_names([name, "GTVp"], OutlinePatterns()) == {name: 2, "GTVp": 1}


@pytest.mark.parametrize("name", GTV)
def test_a_gtv_alone_is_the_primary_unless_another_says_so(name: str) -> None:
    assert match_names([name, "GTVn"], OutlinePatterns()) == {name: 1, "GTVn": 2}
    assert match_names([name, "GTVp"], OutlinePatterns()) == {"GTVp": 1}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_out(name: str) -> None:
    assert match_names([name], OutlinePatterns()) == {}


def test_a_long_number_takes_no_time() -> None:
    assert match_names(["GTVp " + 60 * "1" + "!", "GTV v12 " + 40 * "v1" + "x"], OutlinePatterns()) == {}


def test_patterns_are_settings() -> None:
    patterns = OutlinePatterns(gtvp=("tumeur",), gtvn=(r"adeno \d",), gtv=())
    assert match_names(["Tumeur", "Adéno_1", "ADENO-2", "GTV"], patterns) == {"Tumeur": 1, "ADENO-2": 2}


def test_a_name_of_both_is_refused() -> None:
    with pytest.raises(InputError, match="'GTVp' matches patterns of GTVp and of GTVn"):
        match_names(["GTVp"], OutlinePatterns(gtvn=("gtv.*",)))


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(InputError, match="no regular expression"):
        OutlinePatterns(gtvp=("gtv(",))


def test_a_plain_patient_id_stays() -> None:
    assert case_id_of("STS_008") == "STS_008"


@pytest.mark.parametrize("patient", ["../../etc/x", "..", "a/b", "Müller 7", "日本", "x" * 200, ".x", "C:\\a", "a\n"])
def test_ids_are_safe_as_file_names(patient: str) -> None:
    case_id = case_id_of(patient)
    assert CASE_ID.fullmatch(case_id)
    assert len(case_id) <= 64
    assert case_id != patient
    assert case_id == case_id_of(patient)


def test_ids_that_look_alike_stay_apart() -> None:
    assert len({case_id_of(patient) for patient in ("a/b", "a b", "a-b", "a:b")}) == 4


def test_hidden_ids_say_nothing() -> None:
    assert "STS" not in case_id_of("STS_008", hidden=True)
    assert case_id_of("STS_008", hidden=True) != case_id_of("STS_009", hidden=True)
