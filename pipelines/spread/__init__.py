"""Work on many cases spread over processes and machines: what a worker does with one, and what is made of all."""
