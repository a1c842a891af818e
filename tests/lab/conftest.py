from tests.lab.fixtures import *  # noqa: F403 - pytest finds fixtures by name in this module
from tests.lab.service import *  # noqa: F403 - likewise
