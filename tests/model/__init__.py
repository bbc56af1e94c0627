"""A model of the protocol, and the search through everything that can happen to it.

One durable message; its sender, worker threads in processes with their keepers,
monitors, an operator; a broker that holds copies; one audit.  Every statement
and every call of the broker is one atomic step, and the steps are taken in
every possible order, between faults that a budget limits.
"""
