"""Where jobs run: `base` has the contract, `local` and `ray` the engines, `worker` the process."""
