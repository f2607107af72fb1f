"""What all programs ask of the machine: its limits, and files that outlive a crash whole."""
