"""How the files of a model are read, checked and counted, and an object in memory is identified."""
