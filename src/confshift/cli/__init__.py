"""The command line: results on stdout, progress and remarks on stderr.

Exit codes: 0 it ran, 1 a gate that the user asked for failed, 2 wrong usage or an unreadable run. Everything
but click is imported by the command that needs it, so that `confshift --help` is quick.
"""

from confshift.cli import pages, questions, runs  # noqa: F401 - each adds its commands
from confshift.cli.group import main as main
