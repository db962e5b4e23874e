import pytest

from medgen.data.layouts.name_groups import begin_alike, kinds_of, look_like_visits, subject_of

SEVERAL = {
    "visits": (["P0_V1", "P0_V2", "P1_V1", "P1_V2"], {"V1", "V2"}, True),
    "one-second-visit": (["P00_a", "P01_a", "P01_b", "P02_a", "P03_a"], {"a", "b"}, False),
    "frames": ([f"patient{i:03d}_frame{f}" for i in range(4) for f in ("01", f"1{i}")], None, True),
    "sides": (["P01L", "P01R", "P02L", "P02R"], {"L", "R"}, True),
    "letters": (["01a", "01b", "02a", "03a"], {"a", "b"}, False),
    "sessions": (["s-01_ses-1_T1w", "s-01_ses-2_T1w", "s-02_ses-1_T1w"], {"ses-1", "ses-2"}, True),
    "spaces": (["s-1_T1w", "s-1_space-MNI_T1w", "s-2_T1w", "s-2_space-MNI_T1w"], {"", "space-MNI"}, False),
    "first": (["pre_01", "post_01", "pre_02", "post_02"], {"pre", "post"}, True),
    "volumes": (["volume-0", "volume-1", "segmentation-0", "segmentation-1"], {"volume", "segmentation"}, False),
    "suffix": (["p0", "p0_gt", "p1", "p1_gt"], {"", "gt"}, False),
    "sites": ([f"{site}_{i:03d}" for site in ("siteA", "siteB") for i in range(9)], {"siteA", "siteB"}, False),
    "brats": (["BraTS-00000-000", "BraTS-00000-001", "BraTS-00002-000"], {"000", "001"}, False),
    "repeats": (["OAS1_0001_MR1", "OAS1_0002_MR1", "OAS1_0002_MR2", "OAS1_0003_MR1"], {"MR1", "MR2"}, True),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_scans_of_one_subject(case):
    names, values, visits = SEVERAL[case]
    kinds = kinds_of(names)
    assert kinds is not None
    assert values is None or set(kinds.values) == values
    assert kinds.visits == visits
    pattern = kinds.subject_pattern()
    owners = [{subject_of(pattern, name) for name in group.values()} for group in kinds.groups.values()]
    assert all(len(names) == 1 and "" not in names for names in owners)
    assert len(set().union(*owners)) == len(kinds.groups)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "c"],
        ["s_1", "s_2", "s_3"],
        [f"case-{i:03d}" for i in range(30)],
        [f"BraTS20_Training_{i:03d}" for i in range(9)],
        ["IXI002-Guys-0828-T1", "IXI012-HH-1211-T1", "IXI013-HH-1212-T1"],
        ["hippocampus_001", "hippocampus_003", "prostate_07"],
        ["x_T1w", "y_T1w", "z_T1w"],
        ["9f3a", "a0b1", "77cd"],
    ],
)
def test_scans_of_different_subjects(names):
    assert kinds_of(names) is None


def test_names_that_begin_alike():
    groups = begin_alike(["P1_20200101", "P1_20210304", "P2_20200506", "P3_20200506"])
    assert groups == [["P1_20200101", "P1_20210304"]]
    assert look_like_visits(groups[0])
    other = begin_alike(["X1_abc", "X1_def", "X2_ghi"])
    assert other == [["X1_abc", "X1_def"]]
    assert not look_like_visits(other[0])
    assert begin_alike([f"hippocampus_{i:03d}" for i in range(20)]) == []


def test_patterns_of_subjects():
    assert subject_of("{subject}_V*", "P_1_V2") == "P_1"
    assert subject_of("*-{subject}", "volume-7") == "7"
    assert subject_of("{subject}_V*", "P1") == ""
    assert subject_of("(?P<subject>[0-9]+)[ab]", "12b") == "12"
