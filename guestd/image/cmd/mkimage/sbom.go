package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"time"

	"strconv"
)

// The SBOM is SPDX 2.3 in JSON (https://spdx.github.io/spdx-spec/v2.3/): the distribution's packages
// from the lock, our third-party programs, and the Go modules that each of them says it holds.
type spdx struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      map[string]any `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []spdxRelation `json:"relationships"`
}

type spdxPackage struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"name"`
	Version   string         `json:"versionInfo"`
	Download  string         `json:"downloadLocation"`
	Analyzed  bool           `json:"filesAnalyzed"`
	License   string         `json:"licenseConcluded"`
	Declared  string         `json:"licenseDeclared"`
	Copyright string         `json:"copyrightText"`
	Checksums []spdxChecksum `json:"checksums,omitempty"`
	External  []spdxExternal `json:"externalRefs"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxExternal struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelation struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

func writeSBOM(path, arch string, debs []deb, programs []built) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return err
	}
	doc := spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "cove-guest-" + arch,
		Creation: map[string]any{"created": time.Unix(seconds, 0).UTC().Format(time.RFC3339), "creators": []string{"Tool: cove-mkimage"}},
	}
	seen := map[string]bool{}
	var identity []string
	add := func(kind, name, version, purl, sum, owner string) string {
		id := "SPDXRef-" + kind + "-" + unfit.ReplaceAllString(name+"-"+version, "-")
		if !seen[id] {
			seen[id] = true
			p := spdxPackage{ID: id, Name: name, Version: version, Download: "NOASSERTION", License: "NOASSERTION", Declared: "NOASSERTION", Copyright: "NOASSERTION",
				External: []spdxExternal{{"PACKAGE-MANAGER", "purl", purl}}}
			if sum != "" {
				p.Checksums = []spdxChecksum{{"SHA256", sum}}
			}
			doc.Packages = append(doc.Packages, p)
			identity = append(identity, id, sum)
		}
		relation := "CONTAINS"
		if owner == doc.ID {
			relation = "DESCRIBES"
		}
		doc.Relationships = append(doc.Relationships, spdxRelation{owner, relation, id})
		return id
	}
	for _, d := range debs {
		add("deb", d.Name, d.Version, fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=%s", d.Name, d.Version, d.Arch, suite), d.SHA256, doc.ID)
	}
	for _, p := range programs {
		sum, err := sha256File(p.path)
		if err != nil {
			return err
		}
		id := add("program", p.name, p.version, fmt.Sprintf("pkg:golang/%s@%s", p.module, p.version), sum, doc.ID)
		info, err := buildinfo.ReadFile(p.path)
		if err != nil {
			return fmt.Errorf("read what %s is made of: %w", p.name, err)
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			add("go", m.Path, m.Version, fmt.Sprintf("pkg:golang/%s@%s", m.Path, m.Version), "", id)
		}
	}
	doc.Namespace = "https://cove.invalid/spdx/guest-" + hash(identity...)[:32]
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// unfit is what an SPDX identifier may not hold.
var unfit = regexp.MustCompile(`[^A-Za-z0-9.-]+`)
