"""The accepted scans as a cohort that other tools read, with a record for each."""
