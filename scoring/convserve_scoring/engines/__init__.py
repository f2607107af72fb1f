"""What spreads shards over processes and machines: each gets names and calls `work.work`."""
