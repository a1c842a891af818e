"""What happens to a job, from submission to its end and after."""
