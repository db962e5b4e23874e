"""Prepared scans on disk, for cohorts larger than memory and for runs that prepare the same scans again."""
