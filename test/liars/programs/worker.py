"""What every process of the race runs; a module of its own keeps it compiled."""
import steps

steps.main()
