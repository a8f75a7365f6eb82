package settings

import "github.com/covedesk/cove/app/internal/imagetrust"

// trustKey is the row of the schema for keys that sign images.
var trustKey = key{
	name: "trust.keys", kind: "json", applies: now, description: "Public keys by which `cove image verify` checks signatures of images. `cove image trust` adds and removes them.",
	fallback: func(Host) string { return "[]" },
	allowed: func(Host) string {
		return `a JSON array of {"for": "registry.example.com/team/*", "key": PEM or the path of a file, "from": and "until": dates, or left out}`
	},
	parse: func(_ Host, s string) (string, error) {
		all, err := imagetrust.ParseKeys(s)
		return imagetrust.FormatKeys(all), err
	},
	check: func(_ Host, s string) error {
		all, err := imagetrust.ParseKeys(s)
		if err != nil {
			return err
		}
		return imagetrust.CheckFiles(all)
	},
	take: func(v *Values, s string) { v.Trust, _ = imagetrust.ParseKeys(s) },
}
