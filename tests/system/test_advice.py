import shlex

import pytest

from medgen.config import apply_overrides, parse_config
from medgen.data.layouts.detect import CohortConfig
from medgen.system.advice import as_options, setting

VALUES = [
    ("images", "*_T1w.nii.gz"),
    ("masks", "{id}_labels.nii.gz"),
    ("subjects", "{subject}"),
    ("subjects", "{subject}_V*"),
    ("subjects", "(?P<subject>.+?)([-_. ](gt))?"),
    ("leave_out", "my scans/it's $HOME*.nii"),
    ("layout", "dicom"),
    ("images", "?a?.nii"),
]


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_advice_is_understood_as_typed(name, value):
    (word,) = shlex.split(setting(name, value))
    parsed = apply_overrides({}, [word])["cohort"]
    assert parsed == {name: value}
    if name != "layout" or value in ("dicom",):
        assert getattr(parse_config(CohortConfig, parsed, "here"), name) == value


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_advice_for_commands_with_options(name, value):
    text = as_options(f"say which, for example {setting(name, value)}; or check")
    head, _, rest = text.partition("for example ")
    assert head == "say which, "
    assert shlex.split(rest.rpartition("; or")[0]) == [f"--{name.replace('_', '-')}", value]


def test_roots_and_flags_have_the_names_of_options():
    text = setting("roots", '["/my data, all/x"]')
    (word,) = shlex.split(text)
    assert apply_overrides({}, [word]) == {"cohort": {"roots": ["/my data, all/x"]}}
    assert as_options(f"declare: {text}") == "declare: --root '/my data, all/x'"
    assert as_options(setting("unscaled", "true")) == "--unscaled"
