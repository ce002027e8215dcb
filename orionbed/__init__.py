"""What every backend shares: scenario, plan, schedule policies, ledger, metrics and the command line."""
