"""The engines of a build and of a farm: servers of the Remote Execution API, and what we say to them."""
