package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
)

// Options of a lab.
type Options struct {
	// Dir holds the cluster's YAML. Derived objects go to Dir/.fairlead.
	Dir string
	// Name tells labs on one machine apart. The default is Dir's own name.
	Name string
	// Family of addresses; zero means dual stack.
	Family network.Family
	// NoMesh starts neither agents nor a control plane.
	NoMesh bool
	// ControlPlane is the host:port of another control plane, reached from the
	// machine's own network; empty starts the product's own.
	ControlPlane string
	// ControlPlaneName is the name in that control plane's certificate; empty means
	// istiod.istio-system.svc.
	ControlPlaneName string
	// ControlPlaneRoot is the file of its root certificate; required with ControlPlane.
	ControlPlaneRoot string
	// TokenDir holds the tokens for a control plane that does not take the lab's: a
	// node's in a file of the node's name, a pod's in pods/NAMESPACE/NAME. Who writes
	// them may do so after the node or pod is there. Empty means the lab signs them.
	TokenDir string
	// TrustDomain of identities; empty means cluster.local.
	TrustDomain string
	// Binaries is where node-agent and control-plane are; empty means beside this
	// binary.
	Binaries string
	// AgentArgs are further arguments of the node agents.
	AgentArgs []string
	// ControlPlaneArgs are further arguments of the lab's own control plane.
	ControlPlaneArgs []string
	// Logger must be non-nil.
	Logger *slog.Logger
}

const (
	defaultServerName  = "istiod.istio-system.svc"
	defaultTrustDomain = "cluster.local"
	clusterID          = "Kubernetes"
)

// nameForm leaves room for what names are made into: files, cgroups, directories
// of pinned programs. "--" separates a lab's name from a node's.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$`)

// complete fills defaults in and reports everything that is wrong.
func (o *Options) complete() error {
	var errs []error
	if o.Logger == nil {
		errs = append(errs, errors.New("lab: Logger must be set"))
	}
	if dir, err := filepath.EvalSymlinks(o.Dir); err != nil {
		errs = append(errs, fmt.Errorf("the cluster's directory: %w", err))
	} else if dir, err = filepath.Abs(dir); err != nil {
		errs = append(errs, err)
	} else if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		errs = append(errs, fmt.Errorf("%s is a file: give the directory it is in", dir))
	} else {
		o.Dir = dir
	}
	if o.Name == "" {
		o.Name = DefaultName(o.Dir)
	}
	if err := checkName(o.Name); err != nil {
		errs = append(errs, err)
	}
	if o.Family == 0 {
		o.Family = network.Dual
	}
	if o.ControlPlane != "" {
		if _, _, err := net.SplitHostPort(o.ControlPlane); err != nil {
			errs = append(errs, fmt.Errorf("--control-plane %q: want host:port: %w", o.ControlPlane, err))
		}
		if o.ControlPlaneRoot == "" {
			errs = append(errs, errors.New("--control-plane needs --control-plane-root, the file of its root certificate"))
		}
		if o.NoMesh {
			errs = append(errs, errors.New("--control-plane and --no-mesh exclude each other"))
		}
	}
	for _, path := range []*string{&o.ControlPlaneRoot, &o.TokenDir} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err == nil {
			_, err = os.Stat(abs)
		}
		if err != nil {
			errs = append(errs, err)
		}
		*path = abs
	}
	if o.ControlPlaneName == "" {
		o.ControlPlaneName = defaultServerName
	}
	if o.TrustDomain == "" {
		o.TrustDomain = defaultTrustDomain
	}
	if o.Binaries == "" {
		self, err := os.Executable()
		if err != nil {
			errs = append(errs, err)
		}
		o.Binaries = filepath.Dir(self)
	}
	return errors.Join(errs...)
}

func checkName(name string) error {
	if !nameForm.MatchString(name) || strings.Contains(name, "--") {
		return fmt.Errorf("lab name %q: want 1 to 63 of a-z, 0-9, - and _, without --", name)
	}
	return nil
}

// DefaultName is a lab's name made of its directory's.
func DefaultName(dir string) string {
	name := strings.ToLower(filepath.Base(dir))
	name = regexp.MustCompile(`[^a-z0-9_]+`).ReplaceAllString(name, "-")
	name = strings.Trim(name, "-_")
	if len(name) > 40 {
		name = strings.TrimRight(name[:40], "-_")
	}
	if name == "" {
		return "lab"
	}
	return name
}
