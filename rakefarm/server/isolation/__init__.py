"""What confines commands: levels, each made of parts of the kernel, and tried for real before it is believed."""
