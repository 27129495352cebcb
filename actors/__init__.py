"""Ray actors: each holds a worker, and a worker turns units of work into committed output."""
