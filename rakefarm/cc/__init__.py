"""`rakefarm cc`: single compiler calls on the farm, for make, ninja and CMake."""
