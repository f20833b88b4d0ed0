package ztunnelconfig

import (
	"cmp"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// WorkloadFilter chooses workloads; empty fields choose all.
type WorkloadFilter struct{ Address, Node, Namespace, Name string }

func (f WorkloadFilter) takes(w value) bool {
	return (f.Name == "" || strings.EqualFold(f.Name, document.Text(w, "name"))) && (f.Namespace == "" || strings.EqualFold(f.Namespace, document.Text(w, "namespace"))) &&
		(f.Node == "" || strings.EqualFold(f.Node, document.Text(w, "node"))) && (f.Address == "" || slices.Contains(document.Texts(w, "workloadIps"), f.Address))
}

func choose(all []value, takes func(value) bool) []value {
	out := []value{} // and not null in JSON
	for _, v := range all {
		if takes(v) {
			out = append(out, v)
		}
	}
	return out
}

// ShowWorkloads writes the workloads that the agent knows.
func (d *Dump) ShowWorkloads(out io.Writer, f WorkloadFilter, format string) error {
	all := choose(d.Workloads, f.takes)
	if format != document.Short {
		return document.Write(out, format, all)
	}
	w := table(out)
	fmt.Fprintln(w, "NAMESPACE\tPOD NAME\tADDRESS\tNODE\tWAYPOINT\tPROTOCOL")
	for _, v := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", document.Text(v, "namespace"), document.Text(v, "name"), cmp.Or(strings.Join(document.Texts(v, "workloadIps"), ","), document.Text(v, "hostname")),
			document.Text(v, "node"), d.waypoint(v), document.Text(v, "protocol"))
	}
	return w.Flush()
}

// waypoint is the name of the service that a workload or service has for one.
func (d *Dump) waypoint(v value) string {
	if document.At(v, "waypoint") == nil {
		return "None"
	}
	to := document.Text(v, "waypoint", "destination")
	for _, s := range d.Services {
		if document.Text(s, "namespace")+"/"+document.Text(s, "hostname") == to || slices.Contains(document.Texts(s, "vips"), to) {
			return document.Text(s, "name")
		}
	}
	return "NA"
}

// ShowServices writes the services of a namespace, or all with "".
func (d *Dump) ShowServices(out io.Writer, namespace, format string) error {
	all := choose(d.Services, func(s value) bool {
		return namespace == "" || strings.EqualFold(namespace, document.Text(s, "namespace"))
	})
	if format != document.Short {
		return document.Write(out, format, all)
	}
	healthy := map[string]bool{}
	for _, w := range d.Workloads {
		healthy[document.Text(w, "uid")] = document.Text(w, "status") == "Healthy"
	}
	w := table(out)
	fmt.Fprintln(w, "NAMESPACE\tSERVICE NAME\tSERVICE VIP\tWAYPOINT\tENDPOINTS")
	for _, s := range all {
		var addresses []string
		for _, v := range document.Texts(s, "vips") {
			_, ip, _ := strings.Cut(v, "/")
			addresses = append(addresses, ip)
		}
		endpoints, _ := document.At(s, "endpoints").(value)
		good := 0
		for _, e := range endpoints {
			if healthy[document.Text(e, "workloadUid")] {
				good++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d/%d\n", document.Text(s, "namespace"), document.Text(s, "name"), strings.Join(addresses, ","), d.waypoint(s), good, len(endpoints))
	}
	return w.Flush()
}

// ShowPolicies writes the policies of a namespace, or all with "".
func (d *Dump) ShowPolicies(out io.Writer, namespace, format string) error {
	all := choose(d.Policies, func(p value) bool {
		return namespace == "" || strings.EqualFold(namespace, document.Text(p, "namespace"))
	})
	if format != document.Short {
		return document.Write(out, format, all)
	}
	w := table(out)
	fmt.Fprintln(w, "NAMESPACE\tPOLICY NAME\tACTION\tSCOPE")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", document.Text(p, "namespace"), document.Text(p, "name"), document.Text(p, "action"), document.Text(p, "scope"))
	}
	return w.Flush()
}

// ShowCertificates writes the identities that the agent holds, or one with its name.
func (d *Dump) ShowCertificates(out io.Writer, identity, format string, now time.Time) error {
	all := choose(d.Certificates, func(c value) bool { return identity == "" || document.Text(c, "identity") == identity })
	if format != document.Short {
		return document.Write(out, format, all)
	}
	w := table(out)
	fmt.Fprintln(w, "CERTIFICATE NAME\tTYPE\tSTATUS\tVALID CERT\tSERIAL NUMBER\tNOT AFTER\tNOT BEFORE")
	for _, c := range all {
		state := document.Text(c, "state")
		if strings.Contains(state, "Unavailable") {
			state = "Unavailable"
		}
		chain := document.List(c, "certChain")
		if len(chain) == 0 {
			fmt.Fprintf(w, "%s\tNA\t%s\tfalse\tNA\tNA\tNA\n", document.Text(c, "identity"), state)
			continue
		}
		line := func(kind string, cert any) {
			serial, _ := new(big.Int).SetString(document.Text(cert, "serialNumber"), 10)
			fmt.Fprintf(w, "%s\t%s\t%s\t%t\t%x\t%s\t%s\n", document.Text(c, "identity"), kind, state, valid(cert, now), serial,
				cmp.Or(document.Text(cert, "expirationTime"), "NA"), cmp.Or(document.Text(cert, "validFrom"), "NA"))
		}
		roots := document.List(c, "rootCerts")
		for i, cert := range chain {
			switch {
			case i == 0:
				line("Leaf", cert)
			case i == len(chain)-1 && len(roots) == 0: // as older agents have it
				line("Root", cert)
			default:
				line("Intermediate", cert)
			}
		}
		for _, cert := range roots {
			line("Root", cert)
		}
	}
	return w.Flush()
}

func valid(cert any, now time.Time) bool {
	from, err := time.Parse(time.RFC3339, document.Text(cert, "validFrom"))
	until, err2 := time.Parse(time.RFC3339, document.Text(cert, "expirationTime"))
	return err == nil && err2 == nil && now.After(from) && now.Before(until)
}

// IdentityOf is the identity of a pod that the agent knows, or "".
func (d *Dump) IdentityOf(namespace, name string) string {
	for _, w := range d.Workloads {
		if name != "" && document.Text(w, "name") == name && document.Text(w, "namespace") == namespace {
			return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", cmp.Or(document.Text(w, "trustDomain"), "cluster.local"), namespace, document.Text(w, "serviceAccount"))
		}
	}
	return ""
}

// Renewals say when the agent will renew its certificates, or that of one identity.
func (d *Dump) Renewals(identity string) (out []string) {
	for _, c := range d.Certificates {
		if next := document.Text(c, "nextRenewal"); next != "" && (identity == "" || document.Text(c, "identity") == identity) {
			out = append(out, document.Text(c, "identity")+" is renewed at "+next)
		}
	}
	return out
}
