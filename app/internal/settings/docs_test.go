package settings

import (
	"os"
	"strings"
	"testing"
)

func TestTheDocsNameEverySetting(t *testing.T) {
	b, err := os.ReadFile("../../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range schema {
		if !strings.Contains(string(b), "`"+k.name+"`") {
			t.Errorf("docs/settings.md does not name the setting %s", k.name)
		}
	}
}
