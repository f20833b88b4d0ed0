package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/pkg/lab/token"
)

// volume is one that counts in a lab, at its place below runDir.
type volume struct {
	dir   string // below runDir
	token string // the file of a projected token, or ""
	roots bool   // the mesh's root certificates
}

// volumesOf are the volumes that count: a pod's projected token, the mesh's roots, and
// empty directories, where they are mounted below runDir.
func volumesOf(spec *corev1.PodSpec) (out []volume) {
	at := map[string]string{}
	for _, c := range spec.Containers {
		for _, m := range c.VolumeMounts {
			if dir, ok := strings.CutPrefix(m.MountPath, runDir+"/"); ok {
				at[m.Name] = dir
			}
		}
	}
	for _, v := range spec.Volumes {
		dir, ok := at[v.Name]
		if !ok {
			continue
		}
		one := volume{dir: dir}
		switch {
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil {
					one.token = s.ServiceAccountToken.Path
				}
			}
		case v.ConfigMap != nil && v.ConfigMap.Name == rootcert.Name:
			one.roots = true
		case v.EmptyDir == nil:
			continue
		}
		out = append(out, one)
	}
	return out
}

func (w *worker) hasVolumes() bool { return len(volumesOf(&w.p.spec)) > 0 }

func (w *worker) volumesDir() string { return filepath.Join(w.dir, "volumes") }

// writeVolumes makes what the pod finds below runDir.
func (w *worker) writeVolumes() error {
	for _, v := range volumesOf(&w.p.spec) {
		dir := filepath.Join(w.volumesDir(), filepath.Clean("/"+v.dir))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if v.roots {
			roots, err := os.ReadFile(w.lab.rootCert())
			if err != nil {
				return fmt.Errorf("the mesh's root certificates are not here yet: %w", err)
			}
			if err := os.WriteFile(filepath.Join(dir, rootcert.Key), roots, 0o644); err != nil {
				return err
			}
		}
	}
	return w.lab.writePodToken(w.p, w.volumesDir())
}

// writePodToken writes the tokens that a pod has projected, or says where another
// writes them. Only constant fields of the pod are read.
func (l *Lab) writePodToken(p *pod, volumes string) error {
	for _, v := range volumesOf(&p.spec) {
		if v.token == "" || l.signer == nil {
			continue
		}
		path := filepath.Join(volumes, filepath.Clean("/"+v.dir), v.token)
		if dir := l.opts.TokenDir; dir != "" {
			err := os.Symlink(filepath.Join(dir, "pods", p.key.Namespace, p.key.Name), path)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			continue
		}
		err := l.signer.Write(path, token.Subject{
			Namespace: p.key.Namespace, ServiceAccount: p.spec.ServiceAccountName, ServiceAccountUID: "fairlead-lab-" + p.spec.ServiceAccountName,
			Pod: p.key.Name, PodUID: p.uid, Node: p.node.name,
		}, time.Now())
		if err != nil {
			return err
		}
	}
	return nil
}
