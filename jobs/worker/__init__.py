"""What runs in a worker: claims carried out, leases, lanes, liveness."""
