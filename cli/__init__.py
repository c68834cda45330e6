"""The command line of badpix: thin click commands over the library."""
