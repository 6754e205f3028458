"""Pure functions from facts to statements: statistics, verdicts, comparison, accuracy. No I/O in here."""
