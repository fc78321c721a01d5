"""Many pictures and several tasks, answered into a file of JSON lines that a kill does not harm."""
