"""What an administrator runs on a host so that mxfleet can work there: one script, or the same as an Ansible role."""
