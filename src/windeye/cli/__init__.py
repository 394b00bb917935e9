"""The command line. Each file is one command or one group of commands; `main` puts them together."""
