"""What all runs of a job come to together: results, plans and notes merged, and what did not answer named. Pure.

Runs are added one by one, in any order, and only what the answer shows is kept of them.
"""
