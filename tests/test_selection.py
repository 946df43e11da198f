import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pickcal.errors import InputError, MissingFileError
from pickcal.schema import Status
from pickcal.selection import REASONS, read_thresholds, reason_counts, rejection_reasons, write_thresholds
from pickcal.settings import HandPick, SelectSettings

MICROGRAPHS = xr.Dataset(
    {
        "name": ("micrograph", np.array(["a.mrc", "b.mrc", "c.mrc"], dtype=object)),
        "pixel_size": ("micrograph", [5.0, 5.0, 5.0]),
        "height": ("micrograph", np.array([201, 101, 201])),
        "width": ("micrograph", np.array([101, 201, 101])),
    }
)
# five picks of the first micrograph, three of the second, none of the third (it failed)
PICKS = xr.Dataset(
    {
        "x": (("micrograph", "pick"), [[250, 40, 250, 250, 470], [470, 250, 250, np.nan, np.nan], [250] * 5]),
        "y": (("micrograph", "pick"), [[500, 500, 970, 500, 500], [250, 460, 250, np.nan, np.nan], [250] * 5]),
        "ncc": (("micrograph", "pick"), [[0.5, 0.5, 0.5, 0.1, 0.2], [0.9, 0.8, 0.4, np.nan, np.nan], [0.9] * 5]),
        "power": (("micrograph", "pick"), [[2, 2, 2, 0.5, 9], [2, 9, 0.5, np.nan, np.nan], [2] * 5]),
        "count": ("micrograph", np.array([5, 3, 5], np.int32)),
        "status": ("micrograph", np.array([Status.DONE, Status.DONE, Status.FAILED], np.int8)),
    }
)


def words(settings, calibration=None):
    found = rejection_reasons(PICKS, calibration, MICROGRAPHS, settings)
    assert found.dtype == np.int8
    return [[REASONS[i] if i >= 0 else None for i in row] for row in found]


NOTHING = [None] * 5
OK, EDGE = "accepted", "edge"
LOW = REASONS.index("low score")


def test_without_thresholds_every_pick_is_accepted():
    assert words(SelectSettings()) == [[OK] * 5, [OK] * 3 + [None] * 2, NOTHING]


def test_every_threshold_gives_its_reason():
    assert words(SelectSettings(min_ncc=0.3))[0] == [OK, OK, OK, "low score", "low score"]
    assert words(SelectSettings(min_power=1.0))[0] == [OK, OK, OK, "low power", OK]
    assert words(SelectSettings(max_power=5.0))[:2] == [
        [OK, OK, OK, OK, "high power"],
        [OK, "high power", OK, None, None],
    ]
    assert words(SelectSettings(exclude=("b.mrc",))) == [[OK] * 5, ["micrograph"] * 3 + [None] * 2, NOTHING]


def test_the_edge_is_that_of_each_micrographs_own_shape():
    """Between first and last pixel centres: 500 Å across and 1000 Å down in the first, turned over in the second."""
    assert words(SelectSettings(edge=45.0))[:2] == [[OK, EDGE, EDGE, OK, EDGE], [OK, EDGE, OK, None, None]]
    assert words(SelectSettings(edge=30.0))[:2] == [[OK] * 5, [OK] * 3 + [None] * 2]
    assert words(SelectSettings(edge=30.1))[0] == [OK, OK, EDGE, OK, EDGE]


def test_values_at_a_threshold_are_accepted():
    assert words(SelectSettings(min_ncc=0.5))[0][0] == OK
    assert words(SelectSettings(min_power=2.0))[0][0] == OK
    assert words(SelectSettings(max_power=9.0))[0][4] == OK


def test_the_first_reason_that_applies_counts():
    strict = SelectSettings(min_ncc=0.3, min_power=1, max_power=5, edge=45, exclude=("b.mrc",))
    assert words(strict) == [[OK, EDGE, EDGE, "low score", EDGE], ["micrograph"] * 3 + [None] * 2, NOTHING]
    counts = reason_counts(rejection_reasons(PICKS, None, MICROGRAPHS, strict))
    assert counts.shape == (len(REASONS), 3) and counts.dtype == np.int32
    table = {reason: row.tolist() for reason, row in zip(REASONS, counts, strict=True)}
    assert table == {
        "accepted": [1, 0, 0],
        "micrograph": [0, 3, 0],
        "edge": [3, 0, 0],
        "low score": [1, 0, 0],
        "low power": [0, 0, 0],
        "high power": [0, 0, 0],
        "probability": [0, 0, 0],
        "false discovery rate": [0, 0, 0],
        "by hand": [0, 0, 0],
    }


def hand(micrograph, x, y):
    return HandPick(micrograph=micrograph, x=x, y=y)


WITH_DIAMETER = PICKS.assign_attrs(diameter=100.0)


def decided(**settings):
    found = rejection_reasons(WITH_DIAMETER, None, MICROGRAPHS, SelectSettings(**settings))
    return [[REASONS[i] if i >= 0 else None for i in row] for row in found]


def test_decisions_by_hand_come_before_thresholds():
    settings = {"min_ncc": 0.3, "accept": [hand("a.mrc", 474, 496)], "reject": [hand("a.mrc", 40, 500)]}
    assert decided(**settings)[0] == [OK, "by hand", OK, "low score", OK]
    assert decided(**settings, exclude=("a.mrc",))[0] == ["micrograph"] * 5


def test_a_decision_is_on_the_nearest_pick():
    # picks 0, 1, 2 are at x 470, 250, 250 and y 250, 460, 250
    assert decided(reject=[hand("b.mrc", 250, 455)])[1] == [OK, "by hand", OK, None, None]
    assert decided(reject=[hand("b.mrc", 247, 257)])[1] == [OK, OK, "by hand", None, None]


def test_decisions_by_hand_without_a_pick_are_refused():
    with pytest.raises(
        InputError, match=r"no pick of 'b\.mrc' within 10\.0 Å of x 300, y 460 Å \(the nearest is 50\.0 Å"
    ):
        decided(accept=[hand("b.mrc", 300, 460)])
    with pytest.raises(InputError, match=r"no micrograph named 'z\.mrc'"):
        decided(reject=[hand("z.mrc", 300, 460)])
    with pytest.raises(InputError, match=r"pick 1 of 'a\.mrc' is in both"):
        decided(accept=[hand("a.mrc", 40, 500)], reject=[hand("a.mrc", 41, 500)])


def test_nothing_of_a_failed_micrograph_is_accepted_by_hand():
    assert decided(accept=[hand("c.mrc", 250, 250)])[2] == NOTHING


def test_decisions_by_hand_survive_the_thresholds_file(tmp_path):
    settings = SelectSettings(
        min_ncc=0.1, accept=[hand("a.mrc", float(np.float32(0.1)), 1 / 3)], reject=[hand("b", 1, 2)]
    )
    write_thresholds(tmp_path / "t.toml", settings, "template")
    assert read_thresholds(tmp_path / "t.toml") == settings


_PROBABILITY = [[0.99, 0.9, 0.5, 0.1, 0.0], [1.0, 0.7, 0.3, np.nan, np.nan], [1.0] * 5]
_Q_VALUE = [[0.01, 0.05, 0.2, 0.5, 0.9], [0.0, 0.1, 0.3, np.nan, np.nan], [0.0] * 5]
LIKELIHOOD = xr.Dataset(
    {"probability": (("micrograph", "pick"), _PROBABILITY), "q_value": (("micrograph", "pick"), _Q_VALUE)}
)


def with_chances(settings, picks=PICKS, likelihood=LIKELIHOOD):
    found = rejection_reasons(picks, None, MICROGRAPHS, settings, likelihood)
    return [[REASONS[i] if i >= 0 else None for i in row] for row in found]


def test_probability_and_false_discovery_rate_give_their_reasons():
    """Values at the threshold are accepted; a third micrograph failed and has none."""
    unlikely, false = "probability", "false discovery rate"
    assert with_chances(SelectSettings(probability=0.5)) == [
        [OK, OK, OK, unlikely, unlikely],
        [OK, OK, unlikely, None, None],
        NOTHING,
    ]
    assert with_chances(SelectSettings(fdr=0.1))[:2] == [[OK, OK, false, false, false], [OK, OK, false, None, None]]
    both = with_chances(SelectSettings(probability=0.5, fdr=0.05, max_power=8.0, edge=45.0))
    assert both[0] == [OK, EDGE, EDGE, unlikely, EDGE]
    assert both[1] == [OK, EDGE, unlikely, None, None]
    assert with_chances(SelectSettings(probability=0.0))[:2] == [[OK] * 5, [OK] * 3 + [None] * 2]


def test_chances_change_nothing_that_they_are_not_asked_for():
    chosen = SelectSettings(min_ncc=0.3, max_power=5)
    assert with_chances(chosen) == words(chosen)


@pytest.mark.parametrize("settings", [SelectSettings(probability=0.5), SelectSettings(fdr=0.1)])
def test_thresholds_on_chances_need_chances(settings):
    with pytest.raises(InputError, match=r"no probabilities.*run 'pickcal calibrate'"):
        rejection_reasons(PICKS, None, MICROGRAPHS, settings)


def test_a_pick_without_a_score_passes_no_threshold():
    """A NaN from another program: it is neither high nor low, and is not accepted as if it were."""
    picks, likelihood = PICKS.copy(deep=True), LIKELIHOOD.copy(deep=True)
    picks["ncc"].values[0, 0] = picks["power"].values[0, 0] = np.nan
    likelihood["probability"].values[0, 0] = likelihood["q_value"].values[0, 0] = np.nan
    for chosen, reason in (
        (SelectSettings(probability=0.5), "probability"),
        (SelectSettings(fdr=0.1), "false discovery rate"),
        (SelectSettings(min_ncc=0.1), "low score"),
    ):
        assert with_chances(chosen, picks, likelihood)[0][0] == reason
    # the power score may be unknown: other thresholds judge such a pick
    assert with_chances(SelectSettings(max_power=5.0), picks, likelihood)[0][0] == OK


CALIBRATION = xr.Dataset(
    {
        "shift": (("score", "micrograph"), [[0.0, 0.45, 0.0], [0.0, np.log(2.0), 0.0]]),
        "gain": ("micrograph", [1.0, 1.0, 1.0]),
    },
    coords={"score": ["ncc", "power"]},
    attrs={"pivot": 0.0},
)


def test_thresholds_are_on_calibrated_scores_unless_raw_is_asked_for():
    """The second micrograph's scores lie 0.45 and a factor of 2 above the reference."""
    chosen = {"min_ncc": 0.4, "max_power": 4.0}
    assert words(SelectSettings(**chosen), CALIBRATION)[1] == ["accepted", "low score", "low score", None, None]
    assert words(SelectSettings(max_power=4.0), CALIBRATION)[1] == [OK, "high power", OK, None, None]
    assert words(SelectSettings(max_power=4.6), CALIBRATION)[1] == [OK, OK, OK, None, None]
    assert words(SelectSettings(raw=True, **chosen), CALIBRATION)[1] == [OK, "high power", OK, None, None]


def test_an_unknown_micrograph_cannot_be_excluded():
    with pytest.raises(InputError, match=r"exclude.*'z\.mrc'"):
        rejection_reasons(PICKS, None, MICROGRAPHS, SelectSettings(exclude=("a.mrc", "z.mrc")))


thresholds = st.builds(
    SelectSettings,
    min_ncc=st.none() | st.floats(-2, 2),
    min_power=st.none() | st.floats(0, 5),
    max_power=st.none() | st.floats(5, 1e6),
    probability=st.none() | st.floats(0, 1),
    fdr=st.none() | st.floats(1e-6, 0.999),
    edge=st.none() | st.floats(0, 1e4),
    exclude=st.lists(st.text(min_size=1, max_size=20), max_size=3).map(tuple),
    raw=st.booleans(),
)


@given(chosen=thresholds)
@settings(max_examples=30)
def test_a_thresholds_file_reads_back_as_it_was_written(tmp_path_factory, chosen):
    path = tmp_path_factory.mktemp("thresholds") / "thresholds.toml"
    write_thresholds(path, chosen, "template")
    assert read_thresholds(path) == chosen
    write_thresholds(path, SelectSettings(), "blob")
    assert read_thresholds(path) == SelectSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_ncc = ", "not a TOML file"),
        ('picks = "template"', r"expected a \[thresholds\] table, found picks"),
        ("", "found nothing"),
        ("thresholds = 3", r"expected a \[thresholds\] table"),
        ("[thresholds]\nmin_nc = 0.3", "min_nc: no such setting; did you mean 'min_ncc'"),
        ("[thresholds]\nprobability = 95", "probability: expected less than or equal to 1, got 95"),
        ("[thresholds]\nfdr = 0.0", "fdr: expected greater than 0, got 0.0"),
        ('[thresholds]\nedge = "far"', "edge: expected a valid number.*got 'far'"),
        ("[thresholds]\nmin_power = 5\nmax_power = 2", "min_power: expected at most max_power"),
    ],
)
def test_a_wrong_thresholds_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_thresholds(path)
    assert str(path) in str(error.value)


def test_a_binary_or_missing_thresholds_file(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(MissingFileError, match=r"mine\.toml: no such thresholds file"):
        read_thresholds(path)
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(InputError, match="not a TOML file"):
        read_thresholds(path)


def test_an_ncc_score_is_a_correlation_and_other_scores_are_not():
    """3 is a typing error for an NCC score, and a usual threshold for a figure of merit."""
    with pytest.raises(InputError, match="min_ncc: expected an NCC score between -2 and 2, got 3"):
        rejection_reasons(PICKS, None, MICROGRAPHS, SelectSettings(min_ncc=3.0))
    foreign = PICKS.assign_attrs(score_label="RELION figure of merit", scores=["figure_of_merit"])
    assert set(np.unique(rejection_reasons(foreign, None, MICROGRAPHS, SelectSettings(min_ncc=3.0)))) == {-1, LOW}
    with pytest.raises(InputError, match="no power score; 'pickcal score' gives them one"):
        rejection_reasons(foreign, None, MICROGRAPHS, SelectSettings(max_power=3.0))
