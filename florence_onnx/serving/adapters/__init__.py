"""What other front ends speak, put into the service's own words and back."""
