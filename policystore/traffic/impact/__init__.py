"""What a change to policies would do to the traffic of the last days, told before anything is saved."""
