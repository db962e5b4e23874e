"""Facts of a run, one sentence each, made of the fields that hold them."""
