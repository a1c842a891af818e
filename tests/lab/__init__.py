"""Real MX hosts in namespaces of this machine: real sshd, real MTAs from Debian's packages, a sink and its DNS."""
