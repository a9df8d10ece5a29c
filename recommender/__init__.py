"""Ask the evidence: budgets in, strategy out, over HTTP or from Python."""
