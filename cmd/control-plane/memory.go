package main

import "runtime/debug"

// crowdedGC is the collector's pace, in percent as GOGC, while agents wait to be let in:
// what each leaves behind is garbage at once, and the peak is what a container's limit is
// for. At other times the collector leaves its time to pushes.
const crowdedGC = 50

// collector sets the collector's pace as there is a crowd or not. A pace of the
// environment that is slower than ours, or none at all, is what it goes back to.
func collector() func(crowded bool) {
	usual := debug.SetGCPercent(crowdedGC)
	debug.SetGCPercent(usual)
	return func(crowded bool) {
		pace := usual
		if crowded && (usual < 0 || usual > crowdedGC) {
			pace = crowdedGC
		}
		debug.SetGCPercent(pace)
	}
}
