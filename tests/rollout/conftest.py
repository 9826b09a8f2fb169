import pytest

from tests import helpers


@pytest.fixture(scope="session", params=helpers.VARIANTS)
def model(request):
    return helpers.model_of(request.param)


@pytest.fixture(scope="session")
def tiny():
    return helpers.model_of()
