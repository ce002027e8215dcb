"""Messages between peers across the internet: pushed at once, checked, acknowledged, repeated where they were lost."""
