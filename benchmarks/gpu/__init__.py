"""Everything that is to be known of a GPU, checked and measured by one command."""
