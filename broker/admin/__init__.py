"""Administration: the functions that the command line and the API share. Who may do what is decided here, once."""
