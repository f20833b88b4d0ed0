// Package measure has what all benchmarks need: what processes cost, what the
// machine was like, and statistics of samples that were taken in turns.
package measure

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CPU is what processes have used, in user and system time.
func CPU(pids ...int) (d time.Duration, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
		for _, f := range fields[11:13] {
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			d += time.Duration(ticks) * (time.Second / 100)
		}
	}
	return d, nil
}

// RSS is a process's resident memory in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// Median is NaN of nothing.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// Ratio is the median of the ratios of samples of the same round, with the
// bootstrap interval of 95 %.
type Ratio struct{ Median, Low, High float64 }

// RatioOf takes a's samples over b's, round by round.
func RatioOf(a, b []float64) Ratio {
	var r []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			r = append(r, a[i]/b[i])
		}
	}
	if len(r) == 0 {
		return Ratio{math.NaN(), math.NaN(), math.NaN()}
	}
	const draws = 2000
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same samples give the same interval
	medians, drawn := make([]float64, draws), make([]float64, len(r))
	for i := range medians {
		for j := range drawn {
			drawn[j] = r[random.IntN(len(r))]
		}
		medians[i] = Median(drawn)
	}
	slices.Sort(medians)
	return Ratio{Median(r), medians[draws*25/1000], medians[draws*975/1000]}
}

func (r Ratio) String() string {
	if math.IsNaN(r.Median) {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f..%.2f)", r.Median, r.Low, r.High)
}

// Load is the machine's load average of the last minute.
func Load() float64 {
	b, _ := os.ReadFile("/proc/loadavg")
	v, _ := strconv.ParseFloat(strings.Fields(string(b) + " 0")[0], 64)
	return v
}

// Steal is the time that the hypervisor gave to others, of all CPUs together.
func Steal() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	if f := strings.Fields(line); len(f) > 8 {
		ticks, _ := strconv.ParseInt(f[8], 10, 64)
		return time.Duration(ticks) * (time.Second / 100)
	}
	return 0
}

// Machine is a line of facts without which figures say nothing.
func Machine() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	model := "unknown CPU"
	aes := "no VAES"
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.Trim(rest, "\t :\n")
		}
		if strings.HasPrefix(line, "flags") && strings.Contains(line, " vaes") {
			aes = "VAES"
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %s, %d CPUs, Linux %s, %s, %s", model, aes, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), time.Now().Format(time.DateOnly))
}
