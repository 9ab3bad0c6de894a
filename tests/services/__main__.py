"""`python -m tests.services` (`make servers`): installs what is missing of the test servers."""

import sys

from .install import NotInstalled, install

try:
    install()
except NotInstalled as missing:
    sys.exit(str(missing))
