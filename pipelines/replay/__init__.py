"""Make a whole run again from its record, and compare every output."""
