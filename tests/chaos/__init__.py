"""Real producers, workers and monitors on real servers, under faults; and a ledger that says what came of it."""
