"""What all MTAs need of a host: discovery, command lines."""
