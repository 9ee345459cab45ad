"""The command line: results on stdout, progress and remarks on stderr.

Exit codes: 0 success, 1 a gate of the user's failed or a file is damaged, 2 wrong usage or an unreadable run.
Each command imports what it needs besides click itself, so that `confshift --help` is quick.
"""

from confshift.cli import pages, questions, runs  # noqa: F401 - each adds its commands
from confshift.cli.group import main as main
