"""Names that would run a script wherever they are taken for markup."""

HOSTILE_NAMES = (
    "</script><script>alert('class')</script>",
    "<img src=x onerror=alert('class')>",
    '\'"=HYPERLINK("http://evil.example")&amp;',
)
HOSTILE_TITLE = "</title><script>alert('run')</script>"
