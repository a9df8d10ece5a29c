import pytest

from catalog.statistics.families import StudiedOperator, accuracy_pairs, study_families

TIERS = ("mobile", "edge", "cloud")
SINGLE = (("mobile",), ("edge",), ("cloud",))
ACROSS = (("mobile", "edge"), ("edge", "cloud"), ("mobile", "cloud"))
STUDY = [
    StudiedOperator("identity", (), SINGLE),
    StudiedOperator("quantized", ("static_ptq",), SINGLE),
    StudiedOperator("early_exit", ("early_exit",), SINGLE),
    StudiedOperator("partition", ("partition",), ACROSS),
    StudiedOperator("quantized_early_exit", ("static_ptq", "early_exit"), SINGLE),
    StudiedOperator("quantized_early_exit_partition", ("static_ptq", "early_exit", "partition"), ACROSS),
]

# The study's families, written out.
I, Q, E, P, QE, QEP = (operator.name for operator in STUDY)  # noqa: E741  (the paper's letters)
FAMILIES_OF_THE_STUDY = {
    "tiers:identity": (("RQ1",), [f"{I}@mobile", f"{I}@edge", f"{I}@cloud"]),
    "tiers:quantized": (("RQ2",), [f"{Q}@mobile", f"{Q}@edge", f"{Q}@cloud"]),
    "tiers:early_exit": (("RQ3",), [f"{E}@mobile", f"{E}@edge", f"{E}@cloud"]),
    "tiers:quantized_early_exit": (("RQ5",), [f"{QE}@mobile", f"{QE}@edge", f"{QE}@cloud"]),
    "partitions:partition": (
        ("RQ4",),
        [f"{I}@mobile", f"{I}@edge", f"{I}@cloud", f"{P}@mobile-edge", f"{P}@edge-cloud", f"{P}@mobile-cloud"],
    ),
    "partitions:quantized_early_exit_partition": (
        ("RQ5",),
        [f"{QE}@mobile", f"{QE}@edge", f"{QE}@cloud", f"{QEP}@mobile-edge", f"{QEP}@edge-cloud", f"{QEP}@mobile-cloud"],
    ),
} | {
    f"operators@{tier}": (
        ("RQ2", "RQ3", "RQ4", "RQ5"),
        [f"{I}@{tier}", f"{Q}@{tier}", f"{E}@{tier}", f"{P}@mobile-edge", f"{QE}@{tier}", f"{QEP}@mobile-edge"],
    )
    for tier in TIERS
}


def test_the_study_has_exactly_the_families_of_the_design() -> None:
    families = study_families(STUDY, TIERS)
    assert {family.name: (family.questions, list(family.members)) for family in families} == FAMILIES_OF_THE_STUDY
    assert [family.kind for family in families] == ["tiers"] * 4 + ["partitions"] * 2 + ["operators"] * 3


def test_the_study_compares_four_pairs_of_accuracies() -> None:
    pairs = [(pair.left, pair.right, *pair.questions) for pair in accuracy_pairs(STUDY)]
    assert pairs == [(I, Q, "RQ2"), (I, E, "RQ3"), (Q, QE, "RQ5"), (E, QE, "RQ5")]


def test_a_partition_whose_whole_is_not_declared_is_compared_with_itself() -> None:
    halves = StudiedOperator("halves", ("dynamic", "partition"), ACROSS)
    (only,) = study_families([halves], TIERS)
    assert only.name == "partitions:halves"
    assert only.members == ("halves@mobile-edge", "halves@edge-cloud", "halves@mobile-cloud")


def test_ones_own_operators_and_tiers_have_families_of_the_same_kinds() -> None:
    tiers = ("phone", "gateway")
    own = [
        StudiedOperator("plain", (), (("phone",), ("gateway",))),
        StudiedOperator("pruned", ("prune",), (("gateway",),)),
        StudiedOperator("split", ("partition",), (("gateway", "phone"), ("phone", "gateway"))),
    ]
    families = {family.name: family for family in study_families(own, tiers)}
    assert list(families) == ["tiers:plain", "partitions:split", "operators@phone", "operators@gateway"]
    assert families["operators@phone"].members == ("plain@phone", "split@phone-gateway")
    assert families["operators@gateway"].members == ("plain@gateway", "pruned@gateway", "split@phone-gateway")
    assert families["operators@gateway"].questions == ("RQ4",)
    assert [(pair.left, pair.right, pair.questions) for pair in accuracy_pairs(own)] == [("plain", "pruned", ())]


def test_accuracy_is_compared_with_the_nearest_declared_operator() -> None:
    pairs = accuracy_pairs([StudiedOperator("i", (), ()), StudiedOperator("qe", ("static_ptq", "early_exit"), ())])
    assert [(pair.left, pair.right) for pair in pairs] == [("i", "qe")]
    other_order = [StudiedOperator("ea", ("e", "a"), ()), StudiedOperator("qae", ("q", "a", "e"), ())]
    assert accuracy_pairs(other_order) == ()


def test_a_tier_without_two_strategies_has_no_family() -> None:
    assert study_families([StudiedOperator("identity", (), (("mobile",),))], TIERS) == ()
    assert study_families([], TIERS) == ()
    assert study_families([StudiedOperator("identity", (), ())], ()) == ()


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="'identity' is declared twice"):
        study_families([STUDY[0], STUDY[0]], TIERS)
    with pytest.raises(ValueError, match="'identity' is placed on tier 'cloud'; declared are mobile, edge"):
        study_families([STUDY[0]], ("mobile", "edge"))
