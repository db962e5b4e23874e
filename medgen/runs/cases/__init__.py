"""A function mapped over many cases by many processes or machines, in shards that are whole or not there."""
