package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Verdict is one counted exit of a kernel program.
type Verdict struct {
	Hook, Name string
	Count      uint64
}

// kernelVerdicts asks for the counts when it is collected.
type kernelVerdicts struct {
	desc *prometheus.Desc
	read func() []Verdict
}

// RegisterVerdicts exports the kernel programs' verdict counters, by hook and
// verdict, as fairlead_bpf_verdicts_total.
func RegisterVerdicts(registry *prometheus.Registry, read func() []Verdict) error {
	return registry.Register(&kernelVerdicts{
		desc: prometheus.NewDesc("fairlead_bpf_verdicts_total", "Exits of the kernel programs by hook and verdict.", []string{"hook", "verdict"}, nil),
		read: read,
	})
}

func (k *kernelVerdicts) Describe(ch chan<- *prometheus.Desc) { ch <- k.desc }

func (k *kernelVerdicts) Collect(ch chan<- prometheus.Metric) {
	for _, v := range k.read() {
		ch <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, float64(v.Count), v.Hook, v.Name)
	}
}

// PodVerdict is a verdict on one pod's connections or packets.
type PodVerdict struct {
	Namespace, Pod string
	Verdict
}

// podVerdicts reads them when it is scraped.
type podVerdicts struct {
	desc *prometheus.Desc
	read func() []PodVerdict
}

// RegisterPodVerdicts exports what befell single pods, refusals and what is not
// carried, as fairlead_pod_bpf_verdicts_total.
func RegisterPodVerdicts(registry *prometheus.Registry, read func() []PodVerdict) error {
	return registry.Register(&podVerdicts{
		desc: prometheus.NewDesc("fairlead_pod_bpf_verdicts_total", "Refusals, drops and packets that are not carried, by pod, hook and verdict.", []string{"namespace", "pod", "hook", "verdict"}, nil),
		read: read,
	})
}

func (k *podVerdicts) Describe(ch chan<- *prometheus.Desc) { ch <- k.desc }

func (k *podVerdicts) Collect(ch chan<- prometheus.Metric) {
	for _, v := range k.read() {
		ch <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, float64(v.Count), v.Namespace, v.Pod, v.Hook, v.Name)
	}
}

// RegisterBuild exports istio_build{component, tag} with the value 1.
func RegisterBuild(registry *prometheus.Registry, component string) error {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istio_build", Help: "The component's version."}, []string{"component", "tag"})
	build.WithLabelValues(component, Version).Set(1)
	return registry.Register(build)
}
