"""The one log of the package, silent below warnings unless a program asks for it, as the verbs do."""

import logging

log = logging.getLogger("gptcls")
