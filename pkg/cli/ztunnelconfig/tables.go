package ztunnelconfig

import (
	"cmp"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"
)

// WorkloadFilter chooses workloads; empty fields choose all.
type WorkloadFilter struct{ Address, Node, Namespace, Name string }

func (f WorkloadFilter) takes(w value) bool {
	return (f.Name == "" || strings.EqualFold(f.Name, str(w, "name"))) && (f.Namespace == "" || strings.EqualFold(f.Namespace, str(w, "namespace"))) &&
		(f.Node == "" || strings.EqualFold(f.Node, str(w, "node"))) && (f.Address == "" || slices.Contains(texts(w, "workloadIps"), f.Address))
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
	if format != Short {
		return document(out, format, all)
	}
	w := table(out)
	fmt.Fprintln(w, "NAMESPACE\tPOD NAME\tADDRESS\tNODE\tWAYPOINT\tPROTOCOL")
	for _, v := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", str(v, "namespace"), str(v, "name"), cmp.Or(strings.Join(texts(v, "workloadIps"), ","), str(v, "hostname")),
			str(v, "node"), d.waypoint(v), str(v, "protocol"))
	}
	return w.Flush()
}

// waypoint is the name of the service that a workload or service has for one.
func (d *Dump) waypoint(v value) string {
	if at(v, "waypoint") == nil {
		return "None"
	}
	to := str(v, "waypoint", "destination")
	for _, s := range d.Services {
		if str(s, "namespace")+"/"+str(s, "hostname") == to || slices.Contains(texts(s, "vips"), to) {
			return str(s, "name")
		}
	}
	return "NA"
}

// ShowServices writes the services of a namespace, or all with "".
func (d *Dump) ShowServices(out io.Writer, namespace, format string) error {
	all := choose(d.Services, func(s value) bool { return namespace == "" || strings.EqualFold(namespace, str(s, "namespace")) })
	if format != Short {
		return document(out, format, all)
	}
	healthy := map[string]bool{}
	for _, w := range d.Workloads {
		healthy[str(w, "uid")] = str(w, "status") == "Healthy"
	}
	w := table(out)
	fmt.Fprintln(w, "NAMESPACE\tSERVICE NAME\tSERVICE VIP\tWAYPOINT\tENDPOINTS")
	for _, s := range all {
		var addresses []string
		for _, v := range texts(s, "vips") {
			_, ip, _ := strings.Cut(v, "/")
			addresses = append(addresses, ip)
		}
		endpoints, _ := at(s, "endpoints").(value)
		good := 0
		for _, e := range endpoints {
			if healthy[str(e, "workloadUid")] {
				good++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d/%d\n", str(s, "namespace"), str(s, "name"), strings.Join(addresses, ","), d.waypoint(s), good, len(endpoints))
	}
	return w.Flush()
}

// ShowPolicies writes the policies of a namespace, or all with "".
func (d *Dump) ShowPolicies(out io.Writer, namespace, format string) error {
	all := choose(d.Policies, func(p value) bool { return namespace == "" || strings.EqualFold(namespace, str(p, "namespace")) })
	if format != Short {
		return document(out, format, all)
	}
	w := table(out)
	fmt.Fprintln(w, "NAMESPACE\tPOLICY NAME\tACTION\tSCOPE")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", str(p, "namespace"), str(p, "name"), str(p, "action"), str(p, "scope"))
	}
	return w.Flush()
}

// ShowCertificates writes the identities that the agent holds, or one with its name.
func (d *Dump) ShowCertificates(out io.Writer, identity, format string, now time.Time) error {
	all := choose(d.Certificates, func(c value) bool { return identity == "" || str(c, "identity") == identity })
	if format != Short {
		return document(out, format, all)
	}
	w := table(out)
	fmt.Fprintln(w, "CERTIFICATE NAME\tTYPE\tSTATUS\tVALID CERT\tSERIAL NUMBER\tNOT AFTER\tNOT BEFORE")
	for _, c := range all {
		state := str(c, "state")
		if strings.Contains(state, "Unavailable") {
			state = "Unavailable"
		}
		chain := list(c, "certChain")
		if len(chain) == 0 {
			fmt.Fprintf(w, "%s\tNA\t%s\tfalse\tNA\tNA\tNA\n", str(c, "identity"), state)
			continue
		}
		line := func(kind string, cert any) {
			serial, _ := new(big.Int).SetString(str(cert, "serialNumber"), 10)
			fmt.Fprintf(w, "%s\t%s\t%s\t%t\t%x\t%s\t%s\n", str(c, "identity"), kind, state, valid(cert, now), serial,
				cmp.Or(str(cert, "expirationTime"), "NA"), cmp.Or(str(cert, "validFrom"), "NA"))
		}
		roots := list(c, "rootCerts")
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
	from, err := time.Parse(time.RFC3339, str(cert, "validFrom"))
	until, err2 := time.Parse(time.RFC3339, str(cert, "expirationTime"))
	return err == nil && err2 == nil && now.After(from) && now.Before(until)
}

// IdentityOf is the identity of a pod that the agent knows, or "".
func (d *Dump) IdentityOf(namespace, name string) string {
	for _, w := range d.Workloads {
		if name != "" && str(w, "name") == name && str(w, "namespace") == namespace {
			return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", cmp.Or(str(w, "trustDomain"), "cluster.local"), namespace, str(w, "serviceAccount"))
		}
	}
	return ""
}

// Renewals say when the agent will renew its certificates, or that of one identity.
func (d *Dump) Renewals(identity string) (out []string) {
	for _, c := range d.Certificates {
		if next := str(c, "nextRenewal"); next != "" && (identity == "" || str(c, "identity") == identity) {
			out = append(out, str(c, "identity")+" is renewed at "+next)
		}
	}
	return out
}
