"""Real processes and servers under faults, and a ledger that is checked afterwards."""
