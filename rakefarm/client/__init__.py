"""The client: reads a Rakefile, asks the farm for quotes, places actions, brings their outputs home."""
