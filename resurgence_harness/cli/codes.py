"""With what the commands leave; the gate has codes of its own."""

USER_ERROR, HARNESS_ERROR = 4, 12
EXIT_CODES = (
    "Exit codes: 0 done · 2 the command line cannot be read · 4 something asked for cannot be had, told in a sentence "
    "· 12 the harness or the store failed, `store verify` finding damage included."
)
