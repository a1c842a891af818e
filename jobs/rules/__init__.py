"""Pure rules: states, approval, plans, turns."""
