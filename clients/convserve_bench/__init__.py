"""`bench`: how many calls a server answers, and how long they take at how much load.

What is sent is made and checked first (`workload`). Calls go over connections of HTTP/2 that know
only what such calls need (`frames`, `header_blocks`, `flow_control`, `connection`, `transport`),
because a client for all cases would take more processor time than the server. One thread
(`generator`) shares callers among them (`caller_group`) and counts (`tally`, `histogram`);
`report`, `sweep` and `plot` show the rest.
"""
