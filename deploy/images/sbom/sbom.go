// Package sbom says in SPDX 2.3 JSON what a Go binary was built from, as the
// binary itself has it on record (runtime/debug.BuildInfo).
//
// The image builder uses it.
package sbom

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

// epoch stands for the time of creation where the binary does not know its commit's:
// the same inputs give the same bytes.
const epoch = "1970-01-01T00:00:00Z"

// The parts of SPDX 2.3 that are filled in.
type (
	document struct {
		SPDXVersion       string         `json:"spdxVersion"`
		DataLicense       string         `json:"dataLicense"`
		SPDXID            string         `json:"SPDXID"`
		Name              string         `json:"name"`
		DocumentNamespace string         `json:"documentNamespace"`
		CreationInfo      creation       `json:"creationInfo"`
		Packages          []pack         `json:"packages"`
		Relationships     []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	pack struct {
		SPDXID           string      `json:"SPDXID"`
		Name             string      `json:"name"`
		VersionInfo      string      `json:"versionInfo,omitempty"`
		PackageFileName  string      `json:"packageFileName,omitempty"`
		DownloadLocation string      `json:"downloadLocation"`
		FilesAnalyzed    bool        `json:"filesAnalyzed"`
		Checksums        []checksum  `json:"checksums,omitempty"`
		LicenseConcluded string      `json:"licenseConcluded"`
		LicenseDeclared  string      `json:"licenseDeclared"`
		CopyrightText    string      `json:"copyrightText"`
		Comment          string      `json:"comment,omitempty"`
		PrimaryPurpose   string      `json:"primaryPackagePurpose"`
		ExternalRefs     []reference `json:"externalRefs,omitempty"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	reference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

// Write says what binaries were built from. Name is the document's: the image and
// its platform; version is the product's.
func Write(file, name, version string, binaries ...string) error {
	doc, err := describe(name, version, binaries)
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}

func describe(name, version string, binaries []string) (*document, error) {
	doc := &document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: name,
		CreationInfo: creation{Created: epoch, Creators: []string{"Tool: fairlead-images"}},
	}
	all := sha256.New()
	known := map[string]bool{}
	for _, binary := range binaries {
		content, err := os.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return nil, fmt.Errorf("what %s was built from: %w", binary, err)
		}
		sum := sha256.Sum256(content)
		_, _ = all.Write(sum[:])
		doc.add(info, filepath.Base(binary), version, hex.EncodeToString(sum[:]), known)
	}
	doc.DocumentNamespace = "https://github.com/fairlead-mesh/fairlead/spdx/" + name + "-" + hex.EncodeToString(all.Sum(nil))
	return doc, nil
}

// add puts a binary and the modules in it into the document.
func (d *document) add(info *debug.BuildInfo, binary, version, sum string, known map[string]bool) {
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			d.CreationInfo.Created = s.Value
		}
	}
	self := pack{
		SPDXID: "SPDXRef-binary-" + safe(binary), Name: binary, VersionInfo: version, PackageFileName: binary,
		Checksums: []checksum{{"SHA256", sum}}, Comment: info.Path, PrimaryPurpose: "APPLICATION",
	}
	d.Packages = append(d.Packages, unlicensed(self))
	d.Relationships = append(d.Relationships, relationship{d.SPDXID, "DESCRIBES", self.SPDXID})
	modules := append([]*debug.Module{{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}, info.Deps...)
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		id := "SPDXRef-module-" + safe(m.Path+"-"+m.Version)
		d.Relationships = append(d.Relationships, relationship{self.SPDXID, "DEPENDS_ON", id})
		if known[id] {
			continue
		}
		known[id] = true
		module := pack{
			SPDXID: id, Name: m.Path, VersionInfo: m.Version, PrimaryPurpose: "LIBRARY",
			ExternalRefs: []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}},
		}
		if m.Sum != "" {
			module.Comment = "go.sum " + m.Sum
		}
		d.Packages = append(d.Packages, unlicensed(module))
	}
}

// unlicensed says of a package what nobody has looked at.
func unlicensed(p pack) pack {
	const unknown = "NOASSERTION"
	p.DownloadLocation = cmp.Or(p.DownloadLocation, unknown)
	p.LicenseConcluded, p.LicenseDeclared, p.CopyrightText = unknown, unknown, unknown
	return p
}

var unsafe = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// safe is a name as an SPDX identifier may have it.
func safe(name string) string { return unsafe.ReplaceAllString(name, "-") }
