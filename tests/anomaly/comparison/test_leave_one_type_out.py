from __future__ import annotations

import numpy as np

from medgen.anomaly.comparison import leave_one_type_out
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.corruptions import KINDS
from medgen.anomaly.scores.settings.corruptions import DEFAULT
from medgen.implants.catalogue import registered
from medgen.transforms.masked_smoothing import smooth
from tests.builders.peer_scans import dataset, spotted


def test_groups_name_corruptions_and_implants_that_exist_each_once():
    corruptions = [name for group in leave_one_type_out.GROUPS for name in group]
    implants = [name for kinds in leave_one_type_out.GROUPS.values() for name in kinds]
    assert sorted(corruptions) == sorted(DEFAULT)
    assert set(corruptions) <= set(KINDS)
    assert len(implants) == len(set(implants))
    assert set(implants) <= set(registered())


def test_left_out_versions_are_the_registered_score_with_other_corruptions():
    data = dataset(6)
    fitted = leave_one_type_out.refit(data, 1.0)
    assert len(fitted.selfsup) == 1 + len(leave_one_type_out.GROUPS)
    image, foreground = spotted(data)
    region = foreground[0].numpy()
    maps = fitted.maps(image, foreground, region)
    group = ("offset",)
    kinds = tuple(kind for kind in DEFAULT if kind not in group)
    training = Inputs(data.images, data.foregrounds, (), {"corruptions": kinds})
    state = {**get("descriptors").fit(training), **get("selfsup").fit(training)}
    expected = get("selfsup")(Inputs(image[None], foreground[None]), state)[0]
    np.testing.assert_allclose(
        maps[leave_one_type_out.label(group)], smooth(expected, region, 1.0), rtol=1e-4, atol=1e-4
    )
    assert not np.allclose(maps[leave_one_type_out.label(group)], maps[leave_one_type_out.label()])
    zscore = get("zscore")(Inputs(image[None], foreground[None]), get("zscore").fit(training))[0]
    np.testing.assert_allclose(maps[leave_one_type_out.ZSCORE], smooth(zscore, region, 1.0), rtol=1e-4, atol=1e-4)
