from datetime import timedelta

import pytest
from django.utils import timezone

from policystore.web.template_tags import ago


@pytest.mark.parametrize(
    ("days", "shown"),
    [(10, ">1\xa0week ago<"), (400, ">1\xa0year ago<"), (1.25, ">1\xa0day ago<"), (-10.01, ">1\xa0week from now<")],
)
def test_a_time_is_shown_in_its_largest_unit_with_the_exact_time_as_its_value(days, shown):
    at = timezone.now() - timedelta(days=days)
    element = ago(at)
    assert shown in element
    assert f'datetime="{at:%Y-%m-%dT%H:%M:%S}Z"' in element


def test_no_time_is_shown_as_nothing():
    assert ago(None) == ""
