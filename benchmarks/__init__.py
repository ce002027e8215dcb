"""Speed, measured as ratios in one run against a named rival or a bare lower bound. Not part of the tests."""
