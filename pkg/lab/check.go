package lab

import (
	"fmt"
	"os/exec"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
)

// checkObject refuses what the lab could not run, while it is being read: so the
// file's last good state stays, and the message names file and line.
func checkObject(o metav1.Object) error {
	switch o := o.(type) {
	case *corev1.Pod:
		return checkPod(&o.Spec)
	case *appsv1.Deployment:
		if o.Spec.Replicas != nil && *o.Spec.Replicas < 0 {
			return fmt.Errorf("replicas: %d is less than none", *o.Spec.Replicas)
		}
		selector, err := metav1.LabelSelectorAsSelector(o.Spec.Selector)
		if err != nil {
			return fmt.Errorf("selector: %w", err)
		}
		if selector.Empty() || !selector.Matches(labels.Set(o.Spec.Template.Labels)) {
			return fmt.Errorf("the selector (%s) does not select the template's labels", selector)
		}
		return checkPod(&o.Spec.Template.Spec)
	case *corev1.Node:
		if problems := validation.IsDNS1123Label(o.Name); len(problems) > 0 {
			return fmt.Errorf("a node of the lab needs a plain name: %s", problems[0])
		}
	}
	return nil
}

func checkPod(spec *corev1.PodSpec) error {
	if len(spec.Containers) == 0 {
		return fmt.Errorf("no containers")
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if err := checkContainer(&list[i]); err != nil {
				return fmt.Errorf("container %s: %w", list[i].Name, err)
			}
		}
	}
	return nil
}

func checkContainer(c *corev1.Container) error {
	if c.Name == "" {
		return fmt.Errorf("it has no name")
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef == nil && e.ValueFrom.ResourceFieldRef == nil {
			return fmt.Errorf("env %s: the lab knows values, fieldRef and resourceFieldRef", e.Name)
		}
	}
	if len(c.EnvFrom) > 0 {
		return fmt.Errorf("the lab does not know envFrom: write env")
	}
	if p := c.ReadinessProbe; p != nil && p.HTTPGet == nil && p.TCPSocket == nil && p.Exec == nil {
		return fmt.Errorf("readinessProbe: the lab knows httpGet, tcpSocket and exec")
	}
	if len(c.Command) == 0 {
		if isProduct(c.Image) {
			return nil
		}
		_, err := app.ForImage(c.Image)
		return err
	}
	if _, err := exec.LookPath(c.Command[0]); err != nil {
		return fmt.Errorf("command: this machine has no program %q", c.Command[0])
	}
	return nil
}
