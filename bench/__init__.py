"""What the broker costs: added latency, throughput, start, memory. `python -m bench`, or `make bench`."""
