package differential

// shrink drops steps while what is left still fails, and returns what no single step can be dropped from, unless
// `attemptsMax` came first: delta debugging (Zeller and Hildebrandt 2002), complements only.
func shrink(steps []Step, attemptsMax int, fails func([]Step) bool) []Step {
	attempts := 0
	for size := max(1, len(steps)/2); ; size = max(1, size/2) {
		dropped := false
		for start := 0; start < len(steps); {
			if attempts == attemptsMax {
				return steps
			}
			attempts++
			end := min(start+size, len(steps))
			without := append(append([]Step{}, steps[:start]...), steps[end:]...)
			if len(without) > 0 && fails(without) {
				steps, dropped = without, true
			} else {
				start = end
			}
		}
		if size == 1 && !dropped {
			return steps
		}
	}
}
